/** What is wrong with recorded layers of the Windows host, by what is on disk. */

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { ChainId, DiffId, LayerFormat } from '../../../src/hosts/host.ts';
import { layerFolder, layoutOf, snapshotPath } from '../../../src/hosts/layout.ts';
import { readLayerRecords } from '../../../src/hosts/records.ts';
import { builderOf } from '../../../src/hosts/windows/builders.ts';
import { observeLayers } from '../../../src/hosts/windows/observe.ts';
import {
  layerFaults,
  readLayer,
  type Store,
  soundLayer,
  type WindowsLayerRecord,
} from '../../../src/hosts/windows/store.ts';

const BUILD = 26100;
const BASE = `sha256:${'a'.repeat(64)}` as ChainId;
const CHILD = `sha256:${'b'.repeat(64)}` as ChainId;
const TOP = `sha256:${'c'.repeat(64)}` as ChainId;
let root: string;
let store: Store;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'cimlet-store-'));
  store = { layout: layoutOf(root), build: BUILD };
});
afterEach(() => rm(root, { recursive: true, force: true }));

async function put(
  chainId: ChainId,
  format: LayerFormat,
  change: Partial<WindowsLayerRecord> = {},
  parent?: ChainId,
): Promise<WindowsLayerRecord> {
  const folder = snapshotPath(store.layout, layerFolder({ chainId, format }));
  const files = format === 'ForkedCIM' ? store.layout.cimLayers : folder;
  const name = `${format}-${chainId.slice(7, 9)}`;
  await mkdir(folder, { recursive: true });
  await mkdir(files, { recursive: true });
  await writeFile(join(files, name), 'five!');
  const builder = builderOf(format, BUILD);
  const record: WindowsLayerRecord = {
    formatVersion: 1,
    layer: { chainId, format, diffId: chainId as string as DiffId, parent, bytes: 5, files: 1, builder },
    cimFiles: [{ name, size: 5 }],
    content: `regions of ${chainId}`,
    ...change,
  };
  await writeFile(join(folder, 'layer.json'), JSON.stringify(record));
  return record;
}

const codesOf = async (record: WindowsLayerRecord) =>
  (await layerFaults(store, record)).map(({ code }) => code);

it.each(['ForkedCIM', 'BlockCIM'] as const)('a whole %s layer has none', async (format) => {
  expect(await codesOf(await put(BASE, format))).toEqual([]);
  expect((await soundLayer(store, { chainId: BASE, format }))?.layer.chainId).toBe(BASE);
});

it('layers that another build of Windows wrote are to be built anew', async () => {
  const record = await put(BASE, 'BlockCIM');
  store = { ...store, build: BUILD + 1 };
  expect(await codesOf(record)).toEqual(['builder-changed']);
  expect(await soundLayer(store, { chainId: BASE, format: 'BlockCIM' })).toBeUndefined();
});

it('a layer whose file is gone or cut off is damaged', async () => {
  const record = await put(BASE, 'ForkedCIM');
  const file = join(store.layout.cimLayers, record.cimFiles[0]?.name ?? '');
  await writeFile(file, 'cut');
  expect(await codesOf(record)).toEqual(['file-size']);
  await rm(file);
  expect(await codesOf(record)).toEqual(['file-missing']);
});

it('a layer misses its parent, and the very files of it that it was forked from', async () => {
  const parent = await put(BASE, 'ForkedCIM');
  const child = await put(CHILD, 'ForkedCIM', { forkedFrom: parent.content }, BASE);
  expect(await codesOf(child)).toEqual([]);
  await put(BASE, 'ForkedCIM', { content: 'regions of another run' });
  expect(await codesOf(child)).toEqual(['parent-rebuilt']);
  await rm(snapshotPath(store.layout, layerFolder(parent.layer)), { recursive: true });
  expect(await codesOf(child)).toEqual(['parent-missing', 'parent-rebuilt']);
});

it('what is wrong with a forked layer is wrong with those above it: one repair builds all anew', async () => {
  const { signal } = new AbortController();
  const faults = async () =>
    (await observeLayers(store, await readLayerRecords(store.layout), signal)).map((layer) =>
      layer.faults.map(({ code }) => code),
    );
  const base = await put(BASE, 'ForkedCIM');
  const child = await put(CHILD, 'ForkedCIM', { forkedFrom: base.content }, BASE);
  await put(TOP, 'ForkedCIM', { forkedFrom: child.content }, CHILD);
  await put(BASE, 'BlockCIM');
  await put(CHILD, 'BlockCIM', {}, BASE);
  expect((await faults()).flat()).toEqual([]);
  await rm(join(store.layout.cimLayers, base.cimFiles[0]?.name ?? ''));
  expect((await faults()).filter((codes) => codes.length > 0)).toEqual([
    ['file-missing'],
    ['parent-rebuilt'],
    ['parent-rebuilt'],
  ]);
});

it('a layer that another host left in the root is to be built anew, not cleaned away', async () => {
  const record = await put(BASE, 'ForkedCIM', { content: undefined } as never);
  record.layer.builder = 'embedded-forked-cim/2';
  const read = await readLayer(store, { chainId: BASE, format: 'ForkedCIM' });
  expect(await codesOf({ ...record, content: read?.content ?? '' })).toEqual(['builder-changed']);
});
