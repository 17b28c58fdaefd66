/** Containers that others run on scratches and views of a root, which nothing takes away, in a Windows process. Prints `done` in the end. */

import assert from 'node:assert/strict';
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import type { LayerFormat, MountRequest, SnapshotRequest } from '../../../src/hosts/host.ts';
import { hexOf, mountVolumeGuid, shownVolumeGuid, snapshotGuid } from '../../../src/hosts/identity.ts';
import { createWindowsHost } from '../../../src/hosts/windows/windows-host.ts';
import { openWindowsApi } from '../../../src/native/windows/windows.ts';
import { BASE, build, context, look, rejects, stack, UPPER } from '../../conformance/host.ts';
import { layerItems, writeLayerBlob } from '../../support/host-layers.ts';
import { runContainer, SYSTEMS, stopContainer } from './systems.ts';

await mkdir('C:\\blobs');
await mkdir(SYSTEMS, { recursive: true });
const plan = (text: string) => writeFile('C:\\doubles\\faults.txt', text);
const { vmcompute } = openWindowsApi();
const host = createWindowsHost({ root: 'C:\\store' });
const makeLayer = (files: typeof BASE) => writeLayerBlob('C:\\blobs', layerItems(files));

/** Snapshots of a format whose scratch another runtime has attached. */
async function scratches(format: LayerFormat): Promise<void> {
  const requests = await stack({ makeLayer, format } as never, BASE, UPPER);
  await build(host, requests);
  const chain = requests.map(({ chainId }) => chainId);
  if (format === 'BlockCIM') await host.mergeChain({ chain, format }, context);
  const key = `run of ${format}`;
  const folder = `C:\\store\\snapshots\\${snapshotGuid(key)}`;
  const request: SnapshotRequest = { key, kind: 'active', chain, format };
  const mount: MountRequest = {
    ...{ volumeGuid: mountVolumeGuid(key), path: 'C:\\shown', chain, format },
    ...{ access: 'ReadWrite', view: 'Kernel', snapshot: key },
  };
  const effects = [
    () => host.exportSnapshot(key, 'C:\\run.tar', context),
    () => host.commitSnapshot(key, {}, context),
    () => host.mount(mount, context),
    () => host.removeSnapshot(key, context),
  ];
  const refusesAll = async (why: RegExp) => {
    for (const effect of effects) {
      await rejects(effect(), 'busy', why);
      assert.match(await vmcompute.getLayerMountPath(folder), /^\\\\\?\\Volume\{/);
    }
  };
  await host.prepareSnapshot(request, context);
  await vmcompute.activateLayer(folder);

  await runContainer('web', `${folder}\\sandbox.vhdx`);
  await refusesAll(/compute system web of docker uses it/);
  await stopContainer('web');
  await writeFile(`${SYSTEMS}\\silent.json`, '{"Id":"silent","SystemType":"Container"}');
  await refusesAll(/compute system silent may use it/);
  await rm(`${SYSTEMS}\\silent.json`);
  // A job container, which HCS doesn't know.
  await plan('FSCTL_LOCK_VOLUME 0 fail 5\n');
  await refusesAll(/something on it is open/);

  // One that nobody uses, but for a scanner that soon lets go of it, is detached, and taken over.
  await plan('FSCTL_LOCK_VOLUME 1 fail 5\n'.repeat(4));
  await host.mount(mount, context);
  await writeFile('C:\\shown\\written.txt', 'kept');
  await host.dismount(mount.volumeGuid, context);
  await vmcompute.activateLayer(folder);
  await host.exportSnapshot(key, 'C:\\run.tar', context);
  assert.doesNotMatch(await vmcompute.getLayerMountPath(folder), /Volume/);

  // What begins to run just when it is activated isn't detached to make way.
  await plan('ActivateLayer 1 fail-after 80070020\nFSCTL_LOCK_VOLUME 0 fail 5\n');
  await rejects(host.mount(mount, context), 'busy', /something on it is open/);
  await rejects(host.mount(mount, context), 'busy', /is open/);
  await plan('');
  assert.match(await vmcompute.getLayerMountPath(folder), /^\\\\\?\\Volume\{/);
  await host.mount(mount, context);
  await host.dismount(mount.volumeGuid, context);

  // What is left of a mount isn't made whole while something on it is open, and yet goes with a dismount.
  await plan('SetVolumeMountPointW 1 fail 80004005\nDeactivateLayer 1 fail 80004005\n');
  await rejects(host.mount(mount, context), 'native', /taking back/);
  await plan('FSCTL_LOCK_VOLUME 0 fail 5\n');
  await rejects(host.mount(mount, context), 'busy', /is open/);
  await host.dismount(mount.volumeGuid, context);
  await plan('');
  await host.removeSnapshot(key, context);
  assert.deepEqual((await look(host)).leftovers, []);
}

/** A view that a container shows stays while its layers are built anew. */
async function views(): Promise<void> {
  const format = 'BlockCIM';
  const requests = await stack({ makeLayer, format } as never, BASE, UPPER);
  const chain = requests.map(({ chainId }) => chainId);
  const [base, top] = requests;
  assert(base !== undefined && top !== undefined);
  const volumeGuid = mountVolumeGuid('view');
  const path = 'C:\\view';
  await host.mount({ volumeGuid, path, chain, format, access: 'ReadOnly', view: 'Kernel' }, context);
  const container = `C:\\store\\snapshots\\${hexOf(base.chainId)}.block\\layer.bcim`;
  await rm(container);
  await host.unpackLayer(base, context);
  for (const place of [`\\\\?\\Volume{${shownVolumeGuid(host.root, volumeGuid)}}\\Files`, container]) {
    await runContainer('web', place);
    await rejects(host.commitLayer({ chainId: base.chainId, format }, context), 'busy', /web of docker/);
    assert.equal((await look(host)).mounts[0]?.state, 'mounted');
    await stopContainer('web');
  }
  await host.commitLayer({ chainId: base.chainId, format }, context);
  assert.equal((await look(host)).mounts[0]?.state, 'mounted');
  await host.dismount(volumeGuid, context);
}

/** A scratch elsewhere whose snapshot was being removed is detached, when nobody uses it, before it is deleted. */
async function elsewhere(): Promise<void> {
  const format = 'BlockCIM';
  const requests = await stack({ makeLayer, format } as never, BASE, UPPER);
  const chain = requests.map(({ chainId }) => chainId);
  await mkdir('C:\\elsewhere');
  const scratch = { location: 'C:\\elsewhere' };
  await host.prepareSnapshot({ key: 'moved', kind: 'active', chain, format, scratch }, context);
  const [name] = await readdir('C:\\elsewhere');
  const folder = `C:\\elsewhere\\${name}`;
  await vmcompute.activateLayer(folder);
  const guid = snapshotGuid('moved');
  await rename(`C:\\store\\snapshots\\${guid}`, `C:\\store\\snapshots\\rm-${guid}`);
  await runContainer('web', `${folder}\\sandbox.vhdx`);
  assert.deepEqual(await host.cleanLeftovers(context), []);
  assert.match(await vmcompute.getLayerMountPath(folder), /^\\\\\?\\Volume\{/);
  await stopContainer('web');
  assert.equal((await host.cleanLeftovers(context)).length, 1);
  assert.deepEqual(await readdir('C:\\elsewhere'), []);

  // What was prepared anew since has its scratch in the same place, and keeps it.
  const prepare = (location: string) =>
    host.prepareSnapshot({ key: 'moved', kind: 'active', chain, format, scratch: { location } }, context);
  await prepare('C:\\elsewhere');
  await rename(`C:\\store\\snapshots\\${guid}`, `C:\\store\\snapshots\\rm-${guid}`);
  await prepare('c:\\ELSEWHERE\\');
  assert.equal((await host.cleanLeftovers(context)).length, 1);
  assert.deepEqual(await readdir(folder), ['sandbox.vhdx']);
  assert.deepEqual((await look(host)).snapshots.find(({ key }) => key === 'moved')?.fault, undefined);
  await host.removeSnapshot('moved', context);
  assert.deepEqual(await readdir('C:\\elsewhere'), []);
}

/** The machine's volumes are those of all its roots: mounts of one name in two of them don't touch each other. */
async function roots(): Promise<void> {
  const other = createWindowsHost({ root: 'C:\\other' });
  const [base] = await stack({ makeLayer, format: 'BlockCIM' } as never, BASE);
  assert(base !== undefined);
  await build(other, [base]);
  const volumeGuid = mountVolumeGuid('view');
  const rest = { chain: [base.chainId], format: 'BlockCIM', access: 'ReadOnly', view: 'Kernel' } as const;
  await host.mount({ volumeGuid, path: 'C:\\view', ...rest }, context);
  await other.mount({ volumeGuid, path: 'C:\\others', ...rest }, context);
  await other.dismount(volumeGuid, context);
  assert.equal((await look(host)).mounts[0]?.state, 'mounted');
  await host.dismount(volumeGuid, context);
}

for (const format of ['BlockCIM', 'WCIFS'] as const) await scratches(format);
await views();
await elsewhere();
await roots();
console.log('done');
