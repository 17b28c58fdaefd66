/** Compute systems that use what a root holds, in a Windows process. Prints `done` in the end. */

import assert from 'node:assert/strict';
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import type { LayerRef, MountRequest } from '../../../src/hosts/host.ts';
import {
  exportVolumeGuids,
  hexOf,
  mountVolumeGuid,
  shownVolumeGuid,
  snapshotGuid,
} from '../../../src/hosts/identity.ts';
import { createWindowsHost } from '../../../src/hosts/windows/windows-host.ts';
import { CimMountFlag } from '../../../src/native/windows/cimfs.ts';
import { openWindowsApi } from '../../../src/native/windows/windows.ts';
import { BASE, build, context, look, rejects, stack, UPPER } from '../../conformance/host.ts';
import { layerItems, writeLayerBlob } from '../../support/host-layers.ts';
import { runContainer as run, SYSTEMS, stopContainer as stop } from './systems.ts';

const FOREIGN = '11111111-2222-4333-8444-555555555555';

await mkdir('C:\\blobs');
await mkdir(SYSTEMS, { recursive: true });
const plan = (text: string) => writeFile('C:\\doubles\\faults.txt', text);

const host = createWindowsHost({ root: 'C:\\store' });
const makeLayer = (files: typeof BASE) => writeLayerBlob('C:\\blobs', layerItems(files));
const requests = await stack({ makeLayer, format: 'BlockCIM' } as never, BASE, UPPER);
await build(host, requests);
const chain = requests.map(({ chainId }) => chainId);
const [base, top] = requests.map(({ chainId }): LayerRef => ({ chainId, format: 'BlockCIM' })) as [
  LayerRef,
  LayerRef,
];
await host.mergeChain({ chain, format: 'BlockCIM' }, context);

// A layer's disk, spelled as others may.
const container = `C:/store/snapshots/${hexOf(top.chainId)}.block\\LAYER.bcim`;
await run('web', `\\\\?\\${container.replaceAll('/', '\\')}`);
await writeFile(`${SYSTEMS}\\quiet.json`, JSON.stringify({ Id: 'quiet', SystemType: 'VirtualMachine' }));
const seen = JSON.parse(JSON.stringify((await look(host)).computeSystems));
assert.deepEqual(seen, {
  running: [
    { id: 'quiet', type: 'VirtualMachine', uses: { layers: [], mounts: [], snapshots: [] } },
    {
      id: 'web',
      type: 'Container',
      owner: 'docker',
      state: 'Running',
      guestOs: 'Windows',
      uses: { layers: [top], mounts: [], snapshots: [] },
    },
  ],
});
const refused = /compute system web of docker uses it/;
await assert.rejects(host.removeLayer(top, context), refused);
await rejects(host.removeLayer(top, context), 'busy');
await stop('web');

// A mount's volume.
const volumeGuid = mountVolumeGuid('view');
const volume = shownVolumeGuid(host.root, volumeGuid);
const request: MountRequest = {
  volumeGuid,
  path: 'C:\\shown',
  chain,
  format: 'BlockCIM',
  access: 'ReadOnly',
  view: 'Kernel',
};
await host.mount(request, context);
await run('web', `\\\\?\\Volume{${volume.toUpperCase()}}\\Files`);
assert.deepEqual((await look(host)).computeSystems?.running[1]?.uses.mounts, [volumeGuid]);
await assert.rejects(host.dismount(volumeGuid, context), refused);
assert.equal((await look(host)).mounts[0]?.state, 'mounted');
await stop('web');

// CIMs that are mounted: ours, and one of somebody else, which stays.
const { cimfs, kernel32 } = openWindowsApi();
const image = {
  container: `C:\\store\\snapshots\\${hexOf(base.chainId)}.block\\layer.bcim`,
  name: 'layer.cim',
};
const exporting = `${process.pid}-${hexOf(base.chainId)}.block.files`;
await mkdir(`C:\\store\\exports\\${exporting}`, { recursive: true });
const [exported] = exportVolumeGuids(host.root, exporting);
for (const guid of [FOREIGN, exported]) await cimfs.mountImage(image, CimMountFlag.singleFile, guid);
assert.deepEqual(
  (await look(host)).cimVolumes,
  [
    { path: `\\\\?\\Volume{${FOREIGN}}\\` },
    { path: `\\\\?\\Volume{${exported}}\\`, ours: `export of ${base.chainId}` },
    { path: `\\\\?\\Volume{${volume}}\\`, ours: 'mount at C:\\shown' },
  ].sort((a, b) => (a.path < b.path ? -1 : 1)),
);
await cimfs.dismountImage(exported);
await plan('FindFirstVolumeW 1 fail 5\n');
const { cimVolumes, cimVolumesUnknown, mounts: stillSeen } = await look(host);
assert.deepEqual([cimVolumes, stillSeen.length], [undefined, 1]);
assert.match(cimVolumesUnknown ?? '', /FindFirstVolumeW/);
await host.cleanLeftovers(context);
await host.dismount(volumeGuid, context);
assert.deepEqual((await kernel32.findVolumes()).filter((path) => path.includes('-')).length, 3);
await cimfs.dismountImage(FOREIGN);

// What a crash left is kept as long as it is used.
const leftover = `C:\\store\\snapshots\\rm-${'a'.repeat(64)}.block`;
await mkdir(leftover);
await run('web', `${leftover}\\layer.bcim`);
const warnings: string[] = [];
const warned = { ...context, warn: (message: string) => void warnings.push(message) };
assert.deepEqual(await host.cleanLeftovers(warned), []);
assert.match(warnings.join(), refused);
await stop('web');
assert.equal((await host.cleanLeftovers(context)).length, 1);

// A scratch elsewhere whose mount is lost, whose snapshot was being removed, and whose disk is still attached: taken away
// when nothing can be using it.
await mkdir('C:\\elsewhere');
const elsewhere = { scratch: { location: 'C:\\elsewhere' } };
await host.prepareSnapshot({ key: 'lost', kind: 'active', chain, format: 'BlockCIM', ...elsewhere }, context);
await run('web', `C:\\elsewhere\\${await readdir('C:\\elsewhere')}\\sandbox.vhdx`);
assert.deepEqual((await look(host)).computeSystems?.running[1]?.uses.snapshots, ['lost']);
await rejects(host.removeSnapshot('lost', context), 'busy');
await stop('web');
await host.mount({ ...request, access: 'ReadWrite', snapshot: 'lost' }, context);
const removing = `C:\\store\\snapshots\\rm-${snapshotGuid('lost')}`;
await rm(`C:\\store\\mounts\\${volumeGuid}.json`);
await rename(removing.replace('rm-', ''), removing);
const clean = async () => {
  warnings.length = 0;
  const cleaned = await createWindowsHost({ root: 'C:\\store' }).cleanLeftovers(warned);
  return { cleaned: cleaned.length, said: warnings.join() };
};
await writeFile(`${SYSTEMS}\\silent.json`, '{"Id":"silent","SystemType":"Container"}');
assert.match((await clean()).said, /compute system silent may use it/);
await plan('HcsEnumerateComputeSystems 0 fail 8037011b\n');
assert.match((await clean()).said, /which compute systems run is unknown/);
await plan('FSCTL_LOCK_VOLUME 0 fail 5\n');
await rm(`${SYSTEMS}\\silent.json`);
assert.match((await clean()).said, /something on it is open/);
await plan('');
assert.deepEqual(await clean(), { cleaned: 1, said: '' });
assert.deepEqual(await readdir('C:\\shown'), []);
await rejects(host.mount(request, context), 'already-exists', /no record of this root/);
await cimfs.dismountImage(volume);
assert.deepEqual((await look(host)).leftovers, []);

// What was written to a snapshot whose record can't be read is left alone, and told of.
await host.prepareSnapshot({ key: 'torn', kind: 'active', chain, format: 'BlockCIM' }, context);
const torn = `C:\\store\\snapshots\\${snapshotGuid('torn')}`;
await writeFile(`${torn}\\snapshot.json`, '{');
assert.deepEqual((await look(host)).leftovers, []);
const { cleaned, said } = await clean();
assert.equal(cleaned, 0);
assert.match(said, /is left alone: it has no readable snapshot\.json/);
assert.deepEqual((await readdir(torn)).sort(), ['sandbox.vhdx', 'snapshot.json']);
await rejects(
  host.prepareSnapshot({ key: 'torn', kind: 'active', chain, format: 'BlockCIM' }, context),
  'failed-precondition',
  /what was written to a snapshot/,
);
await rm(torn, { recursive: true });

// Without the privilege to see: said, and gone on with what Windows itself guards.
await plan('HcsEnumerateComputeSystems 0 fail 8037011b\n');
assert.match((await look(host)).computeSystems?.unknown ?? '', /HCS_E_ACCESS_DENIED/);
warnings.length = 0;
await host.removeLayer(top, warned);
assert.match(warnings.join(), /cannot see which compute systems use it/);
await plan('');
console.log('done');
