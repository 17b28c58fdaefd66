/** Writable mounts: making and removing one, beyond what the kernel takes for the same mounts; committing what was written, against tar and sha256sum. */

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createEmbeddedHost } from '../src/hosts/embedded/embedded-host.ts';
import type { MountRequest, SnapshotRequest } from '../src/hosts/host.ts';
import { mountVolumeGuid } from '../src/hosts/identity.ts';
import { unmount } from '../src/native/linux/mount.ts';
import { mountOverlay } from '../src/native/linux/overlay.ts';
import { medianSeconds, report } from './report.ts';

const context = { signal: new AbortController().signal };
const FILES = 64;
const FILE_BYTES = 16 * 2 ** 20;

export async function run(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'cimlet-bench-'));
  try {
    await measure(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function measure(directory: string): Promise<void> {
  const host = createEmbeddedHost({ root: join(directory, 'root') });
  const format = 'BlockCIM';
  const path = join(directory, 'mounted');
  const volumeGuid = mountVolumeGuid('bench');
  const begin = async (chain: SnapshotRequest['chain']): Promise<void> => {
    await host.prepareSnapshot({ key: 'bench', kind: 'active', chain, format }, context);
    const view: MountRequest = {
      volumeGuid,
      path,
      chain,
      format,
      access: 'ReadWrite',
      view: 'Kernel',
      snapshot: 'bench',
    };
    await host.mount(view, context);
  };
  await begin([]);
  writeFileSync(join(path, 'file'), 'file');
  await host.dismount(volumeGuid, context);
  const { chainId } = await host.commitSnapshot('bench', {}, context);

  for (const name of ['lower', 'upper', 'work', 'target']) mkdirSync(join(directory, name));
  const at = (name: string) => join(directory, name);
  const kernel = await medianSeconds(9, async () => {
    const writable = { upper: at('upper'), work: at('work') };
    await mountOverlay({ lowers: [at('lower')], writable, source: 'bench', target: at('target') });
    await unmount(at('target'));
  });
  const whole = await medianSeconds(9, async () => {
    await begin([chainId]);
    await host.dismount(volumeGuid, context);
    await host.removeSnapshot('bench', context);
  });
  report({
    case: 'writable mount made and removed',
    value: whole * 1000,
    unit: 'ms',
    peer: 'overlay by the kernel',
    peerValue: kernel * 1000,
  });

  await begin([chainId]);
  for (let index = 0; index < FILES; index++)
    writeFileSync(join(path, `file-${index}`), Buffer.alloc(FILE_BYTES, `content ${index} `));
  const peer = await medianSeconds(1, () =>
    execFileSync('sh', ['-c', 'tar -c . | sha256sum'], { cwd: path, stdio: ['ignore', 'pipe', 'inherit'] }),
  );
  await host.dismount(volumeGuid, context);
  const commit = await medianSeconds(1, () => host.commitSnapshot('bench', {}, context));
  report({ case: 'commit of 1 GiB', value: commit, unit: 's', peer: 'tar -c | sha256sum', peerValue: peer });
}
