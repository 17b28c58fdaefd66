/** Writable mounts: making and removing one, beyond what the kernel takes for the same mounts; committing what was written, against tar and sha256sum. */

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { writeEmptyExt4 } from '../src/ext4/empty.ts';
import { createEmbeddedHost } from '../src/hosts/embedded/embedded-host.ts';
import type { ChainId, Host, LayerFormat, MountRequest, SnapshotRequest } from '../src/hosts/host.ts';
import { mountVolumeGuid } from '../src/hosts/identity.ts';
import { unmount } from '../src/native/linux/mount.ts';
import { mountExt4, mountOverlay } from '../src/native/linux/overlay.ts';
import { medianSeconds, report } from './report.ts';

const context = { signal: new AbortController().signal };
const KEY = 'bench';
const RUNS = 9;
const FORMATS: LayerFormat[] = ['BlockCIM', 'ForkedCIM', 'LCOW'];
const FILES = 64;
const FILE_BYTES = 16 * 2 ** 20;
const SCRATCH_BYTES = 2 ** 30;

export async function run(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'cimlet-bench-'));
  try {
    for (const format of FORMATS) await measure(format, join(directory, format));
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

interface Bench {
  host: Host;
  directory: string;
  mount: MountRequest;
}

async function measure(format: LayerFormat, directory: string): Promise<void> {
  mkdirSync(directory);
  const host = createEmbeddedHost({ root: join(directory, 'root') });
  const mount: MountRequest = {
    volumeGuid: mountVolumeGuid(KEY),
    path: join(directory, 'mounted'),
    chain: [],
    format,
    access: 'ReadWrite',
    view: 'Kernel',
    snapshot: KEY,
  };
  const { chainId } = await commit({ host, directory, mount }, (path) =>
    writeFileSync(join(path, 'file'), 'file'),
  );
  const bench = { host, directory, mount: { ...mount, chain: [chainId] } };
  await measureMounts(bench, undefined);
  await measureMounts(bench, SCRATCH_BYTES);
  await measureCommit(bench);
}

async function begin({ host, mount }: Bench, scratch?: SnapshotRequest['scratch']): Promise<void> {
  const { chain, format } = mount;
  await host.prepareSnapshot({ key: KEY, kind: 'active', chain, format, scratch }, context);
  await host.mount(mount, context);
}

async function commit(bench: Bench, change: (path: string) => void): Promise<{ chainId: ChainId }> {
  await begin(bench);
  change(bench.mount.path);
  await bench.host.dismount(bench.mount.volumeGuid, context);
  return bench.host.commitSnapshot(KEY, {}, context);
}

/** The peer is the same overlay, over a scratch of the same kind, with nothing kept, looked up or made durable. */
async function measureMounts(bench: Bench, bytes: number | undefined): Promise<void> {
  const { host, directory, mount } = bench;
  const at = (name: string) => join(directory, name);
  for (const name of ['lower', 'scratch', 'target']) mkdirSync(at(name), { recursive: true });
  const [upper, work] = [at('scratch/upper'), at('scratch/work')];
  if (bytes !== undefined) writeEmptyExt4(at('image'), bytes, Buffer.alloc(16, 1));
  const kernel = await measureTimes(async () => {
    if (bytes !== undefined) await mountExt4(at('image'), at('scratch'));
    for (const name of [upper, work]) mkdirSync(name, { recursive: true });
    await mountOverlay({
      lowers: [at('lower')],
      writable: { upper, work },
      source: 'bench',
      target: at('target'),
    });
    await unmount(at('target'));
    if (bytes !== undefined) await unmount(at('scratch'));
  });
  const whole = await measureTimes(async () => {
    await begin(bench, bytes === undefined ? undefined : { bytes });
    await host.dismount(mount.volumeGuid, context);
    await host.removeSnapshot(KEY, context);
  });
  const what = `${mount.format} writable mount${bytes === undefined ? '' : ', sized'}, made and removed`;
  const peer = "the kernel's own mounts";
  report({ case: what, value: whole.wall, unit: 'ms', peer, peerValue: kernel.wall });
  report({ case: `${what}, CPU`, value: whole.cpu, unit: 'ms', peer, peerValue: kernel.cpu });
}

/** Milliseconds; the CPU's are a mean, as they are counted in ticks. */
async function measureTimes(run: () => Promise<void>): Promise<{ wall: number; cpu: number }> {
  await run();
  const before = process.cpuUsage();
  const wall = (await medianSeconds(RUNS, run)) * 1000;
  const { user, system } = process.cpuUsage(before);
  return { wall, cpu: (user + system) / 1000 / RUNS };
}

async function measureCommit(bench: Bench): Promise<void> {
  const { host, mount } = bench;
  await begin(bench);
  for (let index = 0; index < FILES; index++)
    writeFileSync(join(mount.path, `file-${index}`), Buffer.alloc(FILE_BYTES, `content ${index} `));
  const settle = () => void execFileSync('sync');
  const digest = 'tar -c . | sha256sum';
  const peer = await medianSeconds(
    1,
    () => execFileSync('sh', ['-c', digest], { cwd: mount.path, stdio: ['ignore', 'pipe', 'inherit'] }),
    settle,
  );
  await host.dismount(mount.volumeGuid, context);
  const value = await medianSeconds(1, () => host.commitSnapshot(KEY, {}, context), settle);
  report({ case: `${mount.format} commit of 1 GiB`, value, unit: 's', peer: digest, peerValue: peer });
}
