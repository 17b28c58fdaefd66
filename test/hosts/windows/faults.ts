/**
 * Every call of the Windows host failing once, in a Windows process. Prints as JSON, for each: the error, what is left of
 * it, and whether the second try succeeds.
 */

import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import type { ChainId, LayerFormat, MountRequest, UnpackRequest } from '../../../src/hosts/host.ts';
import { mountVolumeGuid } from '../../../src/hosts/identity.ts';
import { createWindowsHost } from '../../../src/hosts/windows/windows-host.ts';
import { openWindowsApi } from '../../../src/native/windows/windows.ts';
import { BASE, build, context, look, stack, UPPER } from '../../conformance/host.ts';
import { layerItems, writeLayerBlob } from '../../support/host-layers.ts';

export interface Outcome {
  format: LayerFormat;
  doing: 'unpack' | 'merge' | 'mount' | 'dismount';
  call: string;
  error: string;
  code: string | undefined;
  leftovers: string[];
  volumes: string[];
  again: string;
}

const host = createWindowsHost({ root: 'C:\\faulty' });
const { kernel32 } = openWindowsApi();
const outcomes: Outcome[] = [];
await mkdir('C:\\faulty-blobs');
await mkdir('C:\\doubles', { recursive: true });

/** E_FAIL, which no caller has a reason to expect. */
async function plan(call: string): Promise<void> {
  await writeFile('C:\\doubles\\faults.txt', `${call} 1 fail 80004005\n`);
}

async function attempt(
  outcome: Pick<Outcome, 'format' | 'doing' | 'call'>,
  effect: () => Promise<unknown>,
): Promise<void> {
  const before = await kernel32.findVolumes();
  await plan(outcome.call);
  const error = await effect().then(
    () => new Error('nothing failed'),
    (thrown: Error & { code?: string }) => thrown,
  );
  const { leftovers } = await look(host);
  const volumes = (await kernel32.findVolumes()).filter((volume) => !before.includes(volume));
  const again = await effect().then(
    () => 'succeeded',
    (thrown: Error) => thrown.message,
  );
  outcomes.push({
    ...outcome,
    error: error.message,
    code: (error as { code?: string }).code,
    leftovers: leftovers.map(({ path, reason }) => `${path}: ${reason}`),
    volumes,
    again,
  });
}

const WRITES = ['CimCreateFile', 'CimWriteStream', 'CimCloseStream', 'CimCommitImage'];

for (const format of ['ForkedCIM', 'BlockCIM'] as const) {
  const makeLayer = (files: typeof BASE) => writeLayerBlob('C:\\faulty-blobs', layerItems(files));
  const requests = await stack({ makeLayer, format } as never, BASE, UPPER);
  const [base, upper] = requests as [UnpackRequest, UnpackRequest];
  const chain: ChainId[] = requests.map(({ chainId }) => chainId);
  await build(host, [base]);
  const create = format === 'ForkedCIM' ? 'CimCreateImage' : 'CimCreateImage2';
  const removal = format === 'ForkedCIM' ? 'CimDeletePath' : 'CimTombstoneFile';
  for (const call of ['CimMountImage', create, ...WRITES, removal, 'CimDismountImage']) {
    await attempt({ format, doing: 'unpack', call }, () => host.unpackLayer(upper, context));
    await host.removeLayer(upper, context);
  }
  await build(host, [upper]);
  if (format === 'BlockCIM')
    for (const call of [create, 'CimAddFsToMergedImage2', 'CimMergeMountImage', 'CimDismountImage']) {
      await attempt({ format, doing: 'merge', call }, () => host.mergeChain({ chain, format }, context));
      await host.removeMerge(upper, context);
    }
  if (format === 'BlockCIM') await host.mergeChain({ chain, format }, context);
  const path = 'C:\\shown-faulty\\here';
  const volumeGuid = mountVolumeGuid('faulty');
  const request: MountRequest = { volumeGuid, path, chain, format, access: 'ReadOnly', view: 'Kernel' };
  for (const call of [format === 'ForkedCIM' ? 'CimMountImage' : 'CimMergeMountImage', 'BfSetupFilter']) {
    await attempt({ format, doing: 'mount', call }, async () => {
      await host.mount(request, context);
      if ((await readFile(`${path}\\a.txt`, 'utf8')) !== 'A') throw new Error('it shows something else');
    });
    await host.dismount(volumeGuid, context);
  }
  for (const call of ['BfRemoveMapping', 'CimDismountImage']) {
    await host.mount(request, context);
    await attempt({ format, doing: 'dismount', call }, () => host.dismount(volumeGuid, context));
  }
}
const rest = (await readdir('C:\\')).filter((name) => name === 'shown-faulty');
console.log(JSON.stringify({ outcomes, rest }));
