/** Disks that utility VMs boot with, in a Windows process. Prints `done` in the end; the calls are for the test to look at. */

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import type { SnapshotRequest } from '../../../src/hosts/host.ts';
import { mountVolumeGuid, snapshotGuid } from '../../../src/hosts/identity.ts';
import { createWindowsHost } from '../../../src/hosts/windows/windows-host.ts';
import { type BASE, build, context, look, rejects, stack } from '../../conformance/host.ts';
import { type LayerItem, layerItems, writeLayerBlob } from '../../support/host-layers.ts';

const BOOT = ['UtilityVM/', 'UtilityVM/Files/', 'UtilityVM/Files/EFI/', 'UtilityVM/Files/EFI/Microsoft/'];
const WITH_VM: LayerItem[] = [
  { name: 'Files/', type: 'directory' },
  { name: 'Files/a.txt', type: 'file', content: Buffer.from('a') },
  ...[...BOOT, 'UtilityVM/Files/EFI/Microsoft/Boot/'].map((name) => ({ name, type: 'directory' as const })),
  { name: 'UtilityVM/Files/EFI/Microsoft/Boot/BCD', type: 'file', content: Buffer.from('bcd') },
];
const UPPER: LayerItem[] = [
  { name: 'Files/', type: 'directory' },
  { name: 'Files/b.txt', type: 'file', content: Buffer.from('b') },
];

await mkdir('C:\\blobs');
await mkdir('C:\\elsewhere');
await mkdir('C:\\doubles', { recursive: true });
const host = createWindowsHost({ root: 'C:\\store' });
const makeLayer = (items: unknown) => writeLayerBlob('C:\\blobs', items as LayerItem[]);
const requests = await stack({ makeLayer, format: 'WCIFS' } as never, WITH_VM as never, UPPER as never);
await build(host, requests);
const plain = await stack(
  { makeLayer: (files: typeof BASE) => makeLayer(layerItems(files)), format: 'WCIFS' } as never,
  { 'other.txt': 'other' },
);
await build(host, plain);

const folderOf = (key: string) => `C:\\store\\snapshots\\${snapshotGuid(key)}`;
const request: SnapshotRequest = {
  key: 'pod',
  kind: 'active',
  chain: requests.map(({ chainId }) => chainId),
  format: 'WCIFS',
  scratch: { utilityVM: true },
};

// A step that fails leaves nothing, and the next try makes it.
const STEPS = ['HcsGrantVmGroupAccess 2', 'CreateVirtualDisk 1'];
for (const step of STEPS) {
  await writeFile('C:\\doubles\\faults.txt', `${step} fail 80004005\n`);
  await assert.rejects(host.prepareSnapshot(request, context), /HcsGrantVmGroupAccess|CreateVirtualDisk/);
  const { snapshots, leftovers } = await look(host);
  assert.deepEqual([step, snapshots, leftovers, existsSync(folderOf('pod'))], [step, [], [], false]);
}
await host.prepareSnapshot(request, context);
await host.prepareSnapshot(request, context);
assert.deepEqual((await readdir(folderOf('pod'))).sort(), ['sandbox.vhdx', 'snapshot.json', 'vm']);
assert.deepEqual(await readdir(`${folderOf('pod')}\\vm`), ['sandbox.vhdx']);
const [pod] = (await look(host)).snapshots;
assert.deepEqual([pod?.scratch, pod?.fault, pod?.files], [{ utilityVM: true }, undefined, 2]);
await rejects(host.prepareSnapshot({ ...request, scratch: undefined }, context), 'already-exists');

// Beside a scratch that is elsewhere.
const away: SnapshotRequest = {
  ...request,
  key: 'away',
  scratch: { utilityVM: true, location: 'C:\\elsewhere' },
};
await host.prepareSnapshot(away, context);
const [there = ''] = await readdir('C:\\elsewhere');
assert.ok(existsSync(`C:\\elsewhere\\${there}\\vm\\sandbox.vhdx`));

// Views have what Windows makes over a base layer, 20 GiB at most, since nothing makes that smaller; what is shown read-only writes nothing to it.
await host.prepareSnapshot({ ...request, key: 'look', kind: 'view', scratch: undefined }, context);
const text = await readFile(`${folderOf('look')}\\sandbox.vhdx`, 'utf8');
assert.deepEqual(text.trim().split(' ').slice(-2).map(Number), [20 * 2 ** 30, 20 * 2 ** 30]);
const volumeGuid = mountVolumeGuid('look');
const view = { ...{ volumeGuid, path: 'C:\\look', chain: request.chain }, access: 'ReadOnly' as const };
await host.mount({ ...view, format: 'WCIFS', view: 'Kernel' }, context);
const [shown = ''] = await readdir('C:\\store\\scratches');
assert.equal(shown, `view-${volumeGuid}`);
await host.dismount(volumeGuid, context);
assert.deepEqual(await readdir('C:\\store\\scratches'), []);
await host.removeSnapshot('look', context);

// Its loss is told; it goes with the snapshot.
await rm(`${folderOf('pod')}\\vm\\sandbox.vhdx`);
const [lost] = (await look(host)).snapshots.filter(({ key }) => key === 'pod');
assert.match(lost?.fault ?? '', /vm\\sandbox\.vhdx.* is gone/);
for (const key of ['pod', 'away']) await host.removeSnapshot(key, context);
assert.deepEqual(await readdir('C:\\elsewhere'), []);
assert.deepEqual([(await look(host)).snapshots, (await look(host)).leftovers], [[], []]);

// What can't be booted so.
const bare = { ...request, key: 'bare', chain: plain.map(({ chainId }) => chainId) };
await rejects(host.prepareSnapshot(bare, context), 'failed-precondition', /no layer .* utility VM/);
await rejects(
  host.prepareSnapshot({ ...request, key: 'block', format: 'BlockCIM' }, context),
  'unsupported-host',
);
await rejects(
  host.prepareSnapshot({ ...request, key: 'x', scratch: { utilityVM: true, shareWith: 'y' } }, context),
  'invalid-manifest',
);
assert.deepEqual([(await look(host)).snapshots, (await look(host)).leftovers], [[], []]);
console.log('done');
