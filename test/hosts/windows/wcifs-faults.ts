/** Each call that makes, shows and hides WCIFS layers failing once, in a Windows process. Prints as JSON what came of it. */

import { mkdir, readFile, writeFile } from 'node:fs/promises';
import type { MountRequest, UnpackRequest } from '../../../src/hosts/host.ts';
import { mountVolumeGuid } from '../../../src/hosts/identity.ts';
import { createWindowsHost } from '../../../src/hosts/windows/windows-host.ts';
import { openWindowsApi } from '../../../src/native/windows/windows.ts';
import { BASE, build, context, look, stack, UPPER } from '../../conformance/host.ts';
import { layerItems, writeLayerBlob } from '../../support/host-layers.ts';

export interface WcifsFault {
  doing: 'unpack base' | 'unpack upper' | 'mount' | 'dismount';
  call: string;
  error: string;
  leftovers: string[];
  volumes: string[];
  again: string;
}

const host = createWindowsHost({ root: 'C:\\faulty-wcifs' });
const { kernel32 } = openWindowsApi();
const faults: WcifsFault[] = [];
await mkdir('C:\\faulty-wcifs-blobs');

async function fail(doing: WcifsFault['doing'], call: string, effect: () => Promise<unknown>): Promise<void> {
  const before = await kernel32.findVolumes();
  // E_FAIL, which no caller has a reason to expect.
  await writeFile('C:\\doubles\\faults.txt', `${call} 1 fail 80004005\n`);
  const error = await effect().then(
    () => 'nothing failed',
    (thrown: Error) => thrown.message,
  );
  const leftovers = (await look(host)).leftovers.map(({ path, reason }) => `${path}: ${reason}`);
  const volumes = (await kernel32.findVolumes()).filter((volume) => !before.includes(volume));
  const again = await effect().then(
    () => 'succeeded',
    (thrown: Error) => thrown.message,
  );
  faults.push({ doing, call, error, leftovers, volumes, again });
}

const makeLayer = (files: typeof BASE) => writeLayerBlob('C:\\faulty-wcifs-blobs', layerItems(files));
const requests = await stack({ makeLayer, format: 'WCIFS' } as never, BASE, UPPER);
const [base, upper] = requests as [UnpackRequest, UnpackRequest];
for (const call of ['BackupWrite', 'ProcessBaseImage']) {
  await fail('unpack base', call, () => host.unpackLayer(base, context));
  await host.removeLayer(base, context);
}
await build(host, [base]);
const showing = ['CreateSandboxLayer', 'ActivateLayer', 'PrepareLayer'];
const hiding = ['UnprepareLayer', 'DeactivateLayer', 'DestroyLayer'];
for (const call of ['CreateSandboxLayer', 'PrepareLayer', 'UnprepareLayer', 'ImportLayer']) {
  await fail('unpack upper', call, () => host.unpackLayer(upper, context));
  await host.removeLayer(upper, context);
}
await build(host, [upper]);
const [volumeGuid, path] = [mountVolumeGuid('faulty wcifs'), 'C:\\shown-faulty-wcifs'];
const chain = requests.map(({ chainId }) => chainId);
const request: MountRequest = {
  volumeGuid,
  path,
  chain,
  format: 'WCIFS',
  access: 'ReadOnly',
  view: 'Kernel',
};
for (const call of [...showing, 'BfSetupFilter']) {
  await fail('mount', call, async () => {
    await host.mount(request, context);
    if ((await readFile(`${path}\\a.txt`, 'utf8')) !== 'A') throw new Error('it shows something else');
  });
  await host.dismount(volumeGuid, context);
}
for (const call of ['BfRemoveMapping', ...hiding]) {
  await host.mount(request, context);
  await fail('dismount', call, () => host.dismount(volumeGuid, context));
}
console.log(JSON.stringify(faults));
