/** Writable mounts in a Windows process. Prints `done` in the end; the calls are for the test to look at. */

import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import type { MountRequest, SnapshotRequest } from '../../../src/hosts/host.ts';
import { mountVolumeGuid, shownVolumeGuid, snapshotGuid } from '../../../src/hosts/identity.ts';
import { createWindowsHost } from '../../../src/hosts/windows/windows-host.ts';
import { openWindowsApi } from '../../../src/native/windows/windows.ts';
import { BASE, build, context, look, rejects, stack, UPPER } from '../../conformance/host.ts';
import { layerItems, writeLayerBlob } from '../../support/host-layers.ts';

/** Where a job container that has no bind filter has its root. */
const PATH = 'C:\\hpc\\app';
const plan = (text: string) => writeFile('C:\\doubles\\faults.txt', text);

await mkdir('C:\\blobs');
await mkdir('C:\\doubles', { recursive: true });
const host = createWindowsHost({ root: 'C:\\store' });
const makeLayer = (files: typeof BASE) => writeLayerBlob('C:\\blobs', layerItems(files));
const requests = await stack({ makeLayer } as never, BASE, UPPER);

// What only SYSTEM may read of the layers below is read with a privilege that is on no longer than that.
const { advapi32, cimfs, computestorage, vmcompute } = openWindowsApi();
const backup = () => advapi32.privilegeState('SeBackupPrivilege');
const states: string[] = [];
await build(host, requests.slice(0, 1));
for (const upper of requests.slice(1)) {
  await host.unpackLayer(upper, { ...context, progress: () => states.push(backup()) });
  await host.commitLayer(upper, context);
}
assert.deepEqual([[...new Set(states)], backup()], [['enabled'], 'disabled']);

const volumeGuid = mountVolumeGuid('writable');
const shown = shownVolumeGuid(host.root, volumeGuid);
const chain = requests.map(({ chainId }) => chainId);
const snapshot: SnapshotRequest = { key: 'writable', kind: 'active', chain, format: 'ForkedCIM' };
const request: MountRequest = {
  volumeGuid,
  path: PATH,
  chain,
  format: 'ForkedCIM',
  access: 'ReadWrite',
  view: 'Kernel',
  snapshot: snapshot.key,
};
await rejects(host.mount({ ...request, snapshot: undefined }, context), 'failed-precondition', /no snapshot/);
await rejects(host.mount(request, context), 'not-found');
await host.prepareSnapshot(snapshot, context);

// Twice not ready, then ready: 21 and 1167.
await plan('ActivateLayer 1 fail 80070015\nActivateLayer 2 fail 8007048f\n');
await host.mount(request, context);
assert.deepEqual((await readdir(PATH)).sort(), ['a.txt', 'dir', 'new']);
assert.equal(await readFile(`${PATH}\\a.txt`, 'utf8'), 'A');
await writeFile(`${PATH}\\written.txt`, 'by a container');
const state = await look(host, [PATH]);
assert.deepEqual(
  [state.mounts[0]?.state, state.paths[PATH]?.kind, state.leftovers],
  ['mounted', 'own-mount', []],
);
// What hcsshim takes as the root of a job container, to bind it into the job or not: internal/jobcontainers.
assert.match(
  state.mounts[0]?.hcsStorage?.Path ?? '',
  /^\\\\\?\\Volume\{[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}\\$/i,
);
await rejects(host.removeLayer(requests[0] as never, context), 'failed-precondition');
await rejects(host.removeSnapshot(snapshot.key, context), 'failed-precondition', /mount at/);
const other = { ...request, volumeGuid: mountVolumeGuid('other'), path: 'C:\\other' };
await rejects(host.mount(other, context), 'failed-precondition', /mounted at/);

// As after a restart of Windows: volume and disk are gone, the mount point leads nowhere; what was written is there again.
const scratch = `C:\\store\\snapshots\\${snapshotGuid(snapshot.key)}`;
const volume = await vmcompute.getLayerMountPath(scratch);
await computestorage.detachOverlayFilter(volume, {
  SchemaVersion: { Major: 2, Minor: 1 },
  FilterType: 'UnionFS',
  Layers: [{ Id: shown, Path: `\\\\?\\Volume{${shown}}\\Files` }],
});
await vmcompute.deactivateLayer(scratch);
await cimfs.dismountImage(shown);
const next = createWindowsHost({ root: 'C:\\store' });
assert.equal((await look(next)).mounts[0]?.state, 'missing');
assert.deepEqual((await look(next)).leftovers, []);
await next.mount(request, context);
assert.equal(await readFile(`${PATH}\\written.txt`, 'utf8'), 'by a container');
assert.equal(await readFile(`${PATH}\\a.txt`, 'utf8'), 'A');

// Dismounting keeps what was written; removing the snapshot is what deletes it.
await next.dismount(volumeGuid, context);
const after = await look(next, ['C:\\hpc']);
assert.deepEqual([after.mounts, after.leftovers], [[], []]);
assert.equal(after.paths['C:\\hpc']?.kind, 'absent');
await rejects(next.removeLayer(requests[1] as never, context), 'failed-precondition', /snapshot/);
await next.mount(request, context);
assert.equal(await readFile(`${PATH}\\written.txt`, 'utf8'), 'by a container');
await next.dismount(volumeGuid, context);
await next.removeSnapshot(snapshot.key, context);
await next.removeSnapshot(snapshot.key, context);
assert.deepEqual((await look(next)).snapshots, []);
await next.prepareSnapshot(snapshot, context);

// Each step failing: nothing of it is left, and the next try works.
for (const call of ['CimMountImage', 'ActivateLayer', 'HcsAttachOverlayFilter', 'SetVolumeMountPointW']) {
  await plan(`${call} 1 fail 80004005\n`);
  await assert.rejects(next.mount(request, context), (error: Error) => error.message.includes(call));
  const { mounts, leftovers, snapshots } = await look(next);
  assert.deepEqual([call, mounts, leftovers, snapshots.length], [call, [], [], 1]);
  await next.mount(request, context);
  assert.equal(await readFile(`${PATH}\\a.txt`, 'utf8'), 'A');
  await assert.rejects(readFile(`${PATH}\\written.txt`));
  await next.dismount(volumeGuid, context);
}

// A step and taking back what was done before it failing: what is left is known, so that the next try gets past it.
await plan('SetVolumeMountPointW 1 fail 80004005\nCimDismountImage 1 fail 80004005\n');
await assert.rejects(next.mount(request, context), /taking back/);
assert.deepEqual(
  (await look(next)).mounts.map((mount) => mount.state),
  ['missing'],
);
await next.mount(request, context);
assert.equal(await readFile(`${PATH}\\a.txt`, 'utf8'), 'A');
await next.dismount(volumeGuid, context);
assert.deepEqual((await look(next)).mounts, []);
console.log('done');
