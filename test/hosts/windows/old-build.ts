/** Snapshots on a build without CimFS, in a Windows process. Prints `done` in the end. */

import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import type { MountRequest, SnapshotRequest } from '../../../src/hosts/host.ts';
import { mountVolumeGuid } from '../../../src/hosts/identity.ts';
import { createWindowsHost } from '../../../src/hosts/windows/windows-host.ts';
import { BASE, build, context, rejects, stack, UPPER } from '../../conformance/host.ts';
import { layerItems, writeLayerBlob } from '../../support/host-layers.ts';

await mkdir('C:\\blobs');
const host = createWindowsHost({ root: 'C:\\store' });
const makeLayer = (files: typeof BASE) => writeLayerBlob('C:\\blobs', layerItems(files));
const format = 'WCIFS';
const requests = await stack({ makeLayer, format } as never, BASE, UPPER);
await build(host, requests);
const chain = requests.map(({ chainId }) => chainId);
const snapshot: SnapshotRequest = { key: 'old', kind: 'active', chain, format };
const mount: MountRequest = {
  ...{ volumeGuid: mountVolumeGuid('old'), path: 'C:\\shown', chain, format },
  ...{ access: 'ReadWrite', view: 'Kernel', snapshot: snapshot.key },
};
await host.prepareSnapshot(snapshot, context);
await host.mount(mount, context);
await writeFile('C:\\shown\\written.txt', 'kept');
await host.dismount(mount.volumeGuid, context);
const { chainId } = await host.commitSnapshot(snapshot.key, {}, context);
const above = [...chain, chainId];
await host.mount({ ...mount, chain: above, access: 'ReadOnly', snapshot: undefined }, context);
assert.equal(await readFile('C:\\shown\\written.txt', 'utf8'), 'kept');
await host.dismount(mount.volumeGuid, context);
const forked = { ...snapshot, key: 'forked', chain: [], format: 'ForkedCIM' } as const;
await rejects(host.prepareSnapshot(forked, context), 'unsupported-host', /CimFS needs build 20348/);
console.log('done');
