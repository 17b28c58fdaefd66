/** Scratches of Linux layers in a Windows process. Prints where the disks are, as JSON. */

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import type {
  ChainId,
  MountRequest,
  ScratchOptions,
  SnapshotRequest,
  UnpackRequest,
} from '../../../src/hosts/host.ts';
import { chainIds, hexOf, mountVolumeGuid, snapshotGuid } from '../../../src/hosts/identity.ts';
import { createWindowsHost } from '../../../src/hosts/windows/windows-host.ts';
import { build, context, look, rejects } from '../../conformance/host.ts';
import { type LayerItem, writeLayerBlob } from '../../support/host-layers.ts';

export interface LinuxDisks {
  layer: string;
  usual: string;
  small: string;
  bare: string;
  elsewhere: string;
}

const MIB = 2 ** 20;
const SYSTEMS = 'C:\\doubles\\systems';
const host = createWindowsHost({ root: 'C:\\store' });
for (const directory of ['C:\\blobs', 'C:\\elsewhere']) await mkdir(directory);
await mkdir(SYSTEMS, { recursive: true });

const tars: LayerItem[][] = [
  [
    { name: 'etc/', type: 'directory' },
    { name: 'etc/os-release', type: 'file', content: Buffer.from('ID=tux\n') },
    { name: 'etc/alias', type: 'symlink', linkName: 'os-release' },
  ],
  [{ name: 'etc/upper', type: 'file', content: Buffer.from('upper') }],
];
const blobs = await Promise.all(tars.map((items) => writeLayerBlob('C:\\blobs', items)));
const chain = chainIds(blobs.map(({ diffId }) => diffId));
const requests = blobs.map(
  ({ blob, diffId }, index): UnpackRequest => ({
    chainId: chain[index] as ChainId,
    diffId,
    parents: chain.slice(0, index),
    format: 'LCOW',
    blob,
    seal: true,
  }),
);
await build(host, requests);

const folderOf = (key: string) => `C:\\store\\snapshots\\${snapshotGuid(key)}`;
const layerFolderOf = (chainId: ChainId | undefined) => `C:\\store\\snapshots\\${hexOf(chainId ?? '')}.lcow`;
const request = (key: string, scratch?: ScratchOptions): SnapshotRequest => ({
  ...{ key, kind: 'active', chain, format: 'LCOW' },
  ...(scratch === undefined ? {} : { scratch }),
});
const prepare = (key: string, scratch?: ScratchOptions) =>
  host.prepareSnapshot(request(key, scratch), context);

await prepare('usual');
await prepare('usual');
await prepare('small', { bytes: 64 * MIB + 77 });
await prepare('bare', { unformatted: true, bytes: 64 * MIB + 77 });
await prepare('elsewhere', { location: 'C:\\elsewhere' });
await prepare('shared', { shareWith: 'usual' });
await host.prepareSnapshot({ ...request('view'), kind: 'view' }, context);
assert.ok((await stat(`${folderOf('usual')}\\sandbox.vhdx`)).size < 16 * MIB);
assert.deepEqual(await readdir(folderOf('shared')), ['snapshot.json']);
assert.deepEqual(await readdir(folderOf('view')), ['snapshot.json']);
const { snapshots, leftovers } = await look(host);
assert.deepEqual(
  [snapshots.length, snapshots.filter(({ fault }) => fault !== undefined), leftovers],
  [6, [], []],
);
assert.ok(!existsSync('C:\\store\\scratches'), 'no disk of Windows is behind them');

// In the words of containerd's lcow snapshotter: a view is its topmost layer; who shares a scratch has it from the other's folder.
const parents = [...chain].reverse().map(layerFolderOf);
const mounts = async (key: string) => (await host.snapshotMounts(key, context))[0];
const option = (folders: string[]) => `parentLayerPaths=${JSON.stringify(folders)}`;
for (const [key, source] of Object.entries({ usual: folderOf('usual'), shared: folderOf('usual') }))
  assert.deepEqual(await mounts(key), { type: 'lcow-layer', source, options: ['rw', option(parents)] });
assert.deepEqual(await mounts('view'), {
  type: 'lcow-layer',
  source: parents[0],
  options: ['ro', option(parents.slice(1))],
});

// What can't be.
await rejects(prepare('x', { bytes: MIB }), 'invalid-manifest', /bytes/);
await rejects(prepare('x', { shareWith: 'nobody' }), 'not-found');
await rejects(prepare('x', { shareWith: 'view' }), 'failed-precondition', /no scratch/);
await rejects(prepare('x', { utilityVM: true }), 'unsupported-host');
await rejects(
  host.prepareSnapshot({ ...request('x'), chain: [] }, context),
  'unsupported-host',
  /files of Linux/,
);
assert.deepEqual([(await look(host)).snapshots.length, (await look(host)).leftovers], [6, []]);

const partOf = async (key: string) =>
  (JSON.parse(await readFile(`${folderOf(key)}\\snapshot.json`, 'utf8')) as { part?: string }).part;

// Two writable views in one VM: one disk, of which each has a part.
const basic = { Id: 'linux', SystemType: 'VirtualMachine', RuntimeOsType: 'Linux', RuntimeId: 'a run' };
await writeFile(`${SYSTEMS}\\linux.json`, JSON.stringify(basic));
await writeFile(`${SYSTEMS}\\linux.guest.json`, '{"GuestConnectionInfo":{}}');
const mountOf = (key: string): MountRequest => ({
  volumeGuid: mountVolumeGuid(key),
  path: `/run/gcs/c/${key}/rootfs`,
  ...{ chain, format: 'LCOW', access: 'ReadWrite', view: 'Kernel', snapshot: key, utilityVM: 'linux' },
});
const things = async () => (await readdir(`${SYSTEMS}\\linux.devices`)).sort();
await host.mount(mountOf('usual'), context);
await host.mount(mountOf('shared'), context);
assert.deepEqual(await things(), [
  ...['layers _run_gcs_c_shared_rootfs', 'layers _run_gcs_c_usual_rootfs', 'mount _run_mounts_cimlet_0-63'],
  ...['pmem 0', 'pmem 1', 'scsi 0-63'],
]);
const shared = await readFile(`${SYSTEMS}\\linux.devices\\layers _run_gcs_c_shared_rootfs`, 'utf16le');
assert.ok(shared.endsWith(`/scratch/${snapshotGuid('usual')}.${await partOf('shared')}`), shared);
await rejects(host.removeSnapshot('usual', context), 'failed-precondition');
await rejects(host.exportSnapshot('shared', 'C:\\x.tar', context), 'failed-precondition', /mount at/);
await host.dismount(mountVolumeGuid('usual'), context);
assert.ok((await things()).includes('scsi 0-63'));
await host.dismount(mountVolumeGuid('shared'), context);
assert.deepEqual(await things(), []);

// What a removed one has written stays on the disk: the next of its key begins with nothing.
const before = await partOf('shared');
await host.removeSnapshot('shared', context);
await prepare('shared', { shareWith: 'usual' });
assert.notEqual(await partOf('shared'), before);

// Removed with what is elsewhere; a lost disk is told.
await rejects(host.removeSnapshot('usual', context), 'failed-precondition', /shared/);
await prepare('lost');
await rm(`${folderOf('lost')}\\sandbox.vhdx`);
assert.match((await look(host)).snapshots.find(({ key }) => key === 'lost')?.fault ?? '', /is gone/);
await host.removeSnapshot('lost', context);
await host.removeSnapshot('view', context);
await prepare('removed');
await host.removeSnapshot('removed', context);
await prepare('removed');
await rename(folderOf('removed'), folderOf('removed').replace(/(?=[^\\]+$)/, 'rm-'));
assert.equal((await host.cleanLeftovers(context)).length, 1);
const [there = ''] = await readdir('C:\\elsewhere');
const disk = (folder: string) => `${folder}\\sandbox.vhdx`;
console.log(
  JSON.stringify({
    layer: `${layerFolderOf(chain[0])}\\layer.vhd`,
    usual: disk(folderOf('usual')),
    small: disk(folderOf('small')),
    bare: disk(folderOf('bare')),
    elsewhere: disk(`C:\\elsewhere\\${there}`),
  } satisfies LinuxDisks),
);
