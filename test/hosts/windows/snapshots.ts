/** Snapshots by key in a Windows process. Prints what Windows was asked to make of each, as JSON. */

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import type { ChainId, SnapshotRequest } from '../../../src/hosts/host.ts';
import { snapshotGuid } from '../../../src/hosts/identity.ts';
import { createWindowsHost } from '../../../src/hosts/windows/windows-host.ts';
import { BASE, build, context, look, rejects, stack, UPPER } from '../../conformance/host.ts';
import { layerItems, writeLayerBlob } from '../../support/host-layers.ts';

const GIB = 2 ** 30;
await mkdir('C:\\blobs');
await mkdir('C:\\elsewhere');
const host = createWindowsHost({ root: 'C:\\store' });
const makeLayer = (files: typeof BASE) => writeLayerBlob('C:\\blobs', layerItems(files));
const blocks = await stack({ makeLayer, format: 'BlockCIM' } as never, BASE, UPPER);
const forks = await stack({ makeLayer } as never, BASE, UPPER);
const chain: ChainId[] = blocks.map(({ chainId }) => chainId);
await build(host, blocks);
await build(host, forks);
await host.mergeChain({ chain, format: 'BlockCIM' }, context);

const folderOf = (key: string) => `C:\\store\\snapshots\\${snapshotGuid(key)}`;
const request = (key: string, more: Partial<SnapshotRequest> = {}): SnapshotRequest => ({
  key,
  kind: 'active',
  chain,
  format: 'BlockCIM',
  ...more,
});
const prepare = (key: string, more: Partial<SnapshotRequest> = {}) =>
  host.prepareSnapshot(request(key, more), context);

/** What the double says of a disk: bytes, and bytes of the file system on it. */
async function diskOf(folder: string): Promise<number[]> {
  const text = await readFile(`${folder}\\sandbox.vhdx`, 'utf8');
  return text.trim().split(' ').slice(-2).map(Number);
}

// Scratches: as large as usual, larger, smaller, of a view, without a file system, elsewhere.
await prepare('usual');
await prepare('large', { scratch: { bytes: 30 * GIB } });
await prepare('small', { scratch: { bytes: 2 * GIB - 5 } });
await prepare('view', { kind: 'view' });
await prepare('bare', { scratch: { unformatted: true } });
await prepare('bare and large', { scratch: { unformatted: true, bytes: 64 * GIB } });
await prepare('elsewhere', { scratch: { location: 'C:\\elsewhere' } });
const [there = ''] = await readdir('C:\\elsewhere');
assert.match(there, /^cimlet-[0-9a-f-]{36}$/);
const disks = {
  usual: await diskOf(folderOf('usual')),
  large: await diskOf(folderOf('large')),
  small: await diskOf(folderOf('small')),
  view: await diskOf(folderOf('view')),
  bare: await diskOf(folderOf('bare')),
  bareAndLarge: await diskOf(folderOf('bare and large')),
  elsewhere: await diskOf(`C:\\elsewhere\\${there}`),
};
assert.deepEqual((await readdir('C:\\store\\scratches')).sort(), [
  'blank-10240m.vhdx',
  'blank-1024m.vhdx',
  'blank-2048m.vhdx',
]);

// What scratches are made over may be read by VMs, also when an earlier process made it; where Windows refuses, that is told, and only VMs miss it.
const granted = async () =>
  (await readFile('C:\\doubles\\calls.jsonl', 'utf8')).split('HcsGrantVmGroupAccess').length;
const before = await granted();
const [later, warnings] = [createWindowsHost({ root: 'C:\\store' }), [] as string[]];
const telling = { ...context, warn: (message: string) => warnings.push(message) };
await later.prepareSnapshot(request('granted'), telling);
assert.ok((await granted()) > before);
assert.deepEqual(warnings, []);
await writeFile('C:\\doubles\\faults.txt', 'HcsGrantVmGroupAccess 1 fail 80070005\n');
await later.prepareSnapshot(request('refused'), telling);
assert.equal(warnings.length, 1);
assert.match(warnings[0] ?? '', /utility VMs .*blank-10240m\.vhdx/);
for (const key of ['granted', 'refused']) await host.removeSnapshot(key, context);

// What can't be.
await rejects(
  prepare('x', { scratch: { unformatted: true, bytes: 39 * GIB } }),
  'invalid-manifest',
  /40 GiB|too few/,
);
await rejects(prepare('x', { scratch: { shareWith: 'usual' } }), 'unsupported-host', /in one scratch/);
await rejects(prepare('x', { scratch: { location: 'elsewhere' } }), 'invalid-manifest', /not absolute/);
await rejects(
  prepare('x', { scratch: { location: 'C:\\store\\in' } }),
  'invalid-manifest',
  /inside of the root/,
);
for (const location of ['\\\\?\\C:\\store\\in', '\\\\?\\c:\\STORE\\', 'C:/store/in/'])
  await rejects(prepare('x', { scratch: { location } }), 'invalid-manifest', /inside of the root/);
await rejects(prepare('x', { scratch: { location: 'C:\\nowhere' } }), 'not-found');
await rejects(prepare('x', { chain: [], scratch: { bytes: GIB } }), 'invalid-manifest', /no layers/);
await rejects(prepare('usual', { kind: 'view' }), 'already-exists');
await prepare('usual');
assert.equal((await look(host)).snapshots.length, 7);
assert.deepEqual((await look(host)).leftovers, []);

// In containerd's words.
const parents = JSON.stringify(
  [...blocks]
    .reverse()
    .map(({ chainId }) => `C:\\store\\snapshots\\${chainId.slice(7)}.block\\layer.bcim\\layer.cim`),
);
assert.deepEqual(await host.snapshotMounts('usual', context), [
  {
    type: 'BlockCIM',
    source: folderOf('usual'),
    options: [
      `parentCimPaths=${parents}`,
      'blockCIMType=file',
      `mergedCIMPath=C:\\store\\snapshots\\${chain.at(-1)?.slice(7)}.merged\\merged.bcim\\merged.cim`,
    ],
  },
]);
await prepare('forked', { format: 'ForkedCIM', kind: 'view' });
const [forked] = await host.snapshotMounts('forked', context);
assert.equal(forked?.type, 'CimFS');
const options = Object.fromEntries((forked?.options ?? []).map((option) => option.split('=', 2)));
assert.deepEqual(Object.keys(options), ['ro', 'cimpath', 'parentLayerPaths', 'parentCimPaths']);
assert.deepEqual(
  JSON.parse(options.parentLayerPaths ?? ''),
  [...chain].reverse().map((chainId) => `C:\\store\\snapshots\\${chainId.slice(7)}`),
);
for (const cim of JSON.parse(options.parentCimPaths ?? '') as string[]) assert(existsSync(cim), cim);

// Without parents it is a directory, laid out as a layer.
await prepare('new base', { chain: [], format: 'ForkedCIM' });
assert.deepEqual(await host.snapshotMounts('new base', context), [
  { type: 'windows-layer', source: folderOf('new base'), options: ['rw'] },
]);
await writeFile(`${folderOf('new base')}\\Files\\first.txt`, 'first');
const { bytes, files } = (await look(host)).snapshots.find(({ key }) => key === 'new base') ?? {};
assert.deepEqual([bytes, files], [5, 1]);
const based = await host.commitSnapshot('new base', {}, context);
assert.deepEqual([based.parent, based.format], [undefined, 'ForkedCIM']);

// Of WCIFS layers it gets the hives that it lacks; a utility VM must be able to boot.
await prepare('windows base', { chain: [], format: 'WCIFS' });
const CONFIG = `${folderOf('windows base')}\\Files\\Windows\\System32\\config`;
await mkdir(CONFIG, { recursive: true });
await writeFile(`${CONFIG}\\SAM`, 'kept as it is');
const BOOT = `${folderOf('windows base')}\\UtilityVM\\Files\\EFI\\Microsoft\\Boot`;
await mkdir(BOOT, { recursive: true });
await rejects(host.commitSnapshot('windows base', {}, context), 'failed-precondition', /BCD/);
await rm(`${folderOf('windows base')}\\UtilityVM`, { recursive: true });
await host.exportSnapshot('windows base', 'C:\\base.tar', context);
assert.deepEqual(await readdir(CONFIG), ['SAM']);
const windowsBase = await host.commitSnapshot('windows base', {}, context);
assert.deepEqual([windowsBase.parent, windowsBase.format], [undefined, 'WCIFS']);
const [hex] = [windowsBase.chainId.slice(7)];
const hives = `C:\\store\\snapshots\\${hex}.wcifs\\${hex.slice(0, 32)}\\Files\\Windows\\System32\\config`;
const made = (await readdir(hives)).filter((name) => /^[A-Z]+$/.test(name)).sort();
assert.deepEqual(made, ['DEFAULT', 'SAM', 'SECURITY', 'SOFTWARE', 'SYSTEM']);
assert.equal(await readFile(`${hives}\\SAM`, 'utf8'), 'kept as it is');

// Views can't become layers, nor what no file system is in.
await rejects(host.commitSnapshot('view', {}, context), 'failed-precondition', /view/);
await rejects(host.exportSnapshot('bare', 'C:\\x.tar', context), 'failed-precondition', /no file system/);
await rejects(host.exportSnapshot('none', 'C:\\x.tar', context), 'not-found');

// A lost disk, and a lost layer, are told.
await host.removeSnapshot('small', context);
await rm(`${folderOf('large')}\\sandbox.vhdx`);
const faults = (await look(host)).snapshots.filter(({ fault }) => fault !== undefined);
assert.deepEqual(
  faults.map(({ key, fault }) => [key, /sandbox.vhdx.* is gone/.test(fault ?? '')]),
  [['large', true]],
);

// What is elsewhere goes with its snapshot.
for (const { key } of (await look(host)).snapshots) await host.removeSnapshot(key, context);
assert.deepEqual(await readdir('C:\\elsewhere'), []);
assert.deepEqual((await look(host)).snapshots, []);
assert.deepEqual((await look(host)).leftovers, []);
assert.equal((await stat('C:\\elsewhere')).isDirectory(), true);
console.log(JSON.stringify(disks));
