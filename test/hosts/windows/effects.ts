/** What the Windows host does to a root, of each format. */

import assert from 'node:assert/strict';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import type {
  Host,
  LayerFormat,
  MountRequest,
  SnapshotRequest,
  UnpackRequest,
} from '../../../src/hosts/host.ts';
import { hexOf, mountVolumeGuid } from '../../../src/hosts/identity.ts';
import { type LayerFiles, look, stack } from '../../conformance/host.ts';
import { type LayerItem, layerItems, writeLayerBlob } from '../../support/host-layers.ts';
import { BLOBS, build, context, type Effect, type Family, named } from './effect.ts';
import { hiveOf } from './hives.ts';
import { linuxEffects } from './linux-effects.ts';

const LAYERS: readonly LayerFiles[] = [
  { 'a.txt': 'a', 'dir/b.txt': 'b' },
  { 'a.txt': 'A', 'dir/b.txt': null },
  { 'new/c.txt': 'c' },
];
/** What Windows merges into the layers above. */
const HIVES: readonly LayerItem[] = ['SYSTEM', 'SOFTWARE', 'SAM', 'SECURITY', 'DEFAULT'].map((name) => ({
  name: `Files/Windows/System32/config/${name}`,
  type: 'file',
  content: hiveOf(name),
}));
const DELTA: LayerItem = { name: 'Hives/SYSTEM_DELTA', type: 'file', content: hiveOf('delta') };
/** What Windows makes a utility VM's disks of. */
const UTILITY_VM: readonly LayerItem[] = [
  { name: 'UtilityVM/Files/', type: 'directory' },
  { name: 'UtilityVM/Files/vm.txt', type: 'file', content: Buffer.from('vm') },
];
const KEY = 'work';

/** Those of a family on a root of its own; `name` is in the names of all that they make outside of it. */
export async function effectsOf(family: Family, root: string, name: string): Promise<Effect[]> {
  await mkdir(BLOBS, { recursive: true });
  return family === 'LCOW' ? linuxEffects(name) : windowsEffects(family, root, name);
}

async function windowsEffects(
  family: Exclude<Family, 'LCOW'>,
  root: string,
  name: string,
): Promise<Effect[]> {
  const seal = family === 'sealed BlockCIM';
  const format: LayerFormat = seal ? 'BlockCIM' : (family as LayerFormat);
  const merges = format === 'BlockCIM';
  const makeLayer = (files: LayerFiles) =>
    writeLayerBlob(BLOBS, [...layerItems(files), ...besides(files, format)]);
  const plain = await stack({ makeLayer, format } as never, ...LAYERS);
  const requests = seal ? plain.map((request) => ({ ...request, seal })) : plain;
  const [base, upper, top] = requests as [UnpackRequest, UnpackRequest, UnpackRequest];
  const chain = requests.map(({ chainId }) => chainId);
  const merge = { chain, format, ...(seal ? { seal } : {}) };
  const own = new Set<string>(chain);

  const path = `C:\\shown\\${name}`;
  const view: MountRequest = {
    volumeGuid: mountVolumeGuid(`view ${name}`),
    path,
    chain,
    format,
    access: 'ReadOnly',
    view: 'Kernel',
  };
  const writable: MountRequest = {
    ...view,
    volumeGuid: mountVolumeGuid(`writable ${name}`),
    access: 'ReadWrite',
    snapshot: KEY,
  };
  const snapshot: SnapshotRequest = {
    key: KEY,
    kind: 'active',
    chain,
    format,
    scratch: { bytes: 30 * 2 ** 30 },
  };

  const shows = async (file: string, content: string) =>
    assert.equal(await readFile(`${path}\\${file}`, 'utf8'), content);
  const clear = async (host: Host) => {
    for (const { volumeGuid } of [view, writable]) await host.dismount(volumeGuid, context);
    await host.removeSnapshot(KEY, context);
    for (const layer of (await look(host)).layers)
      if (!own.has(layer.chainId)) await host.removeLayer(layer, context);
  };
  const mergeAll = async (host: Host) => (merges ? host.mergeChain(merge, context) : undefined);
  const buildAll = async (host: Host) => {
    await build(host, requests);
    await mergeAll(host);
  };
  const show = async (host: Host, request: MountRequest) => {
    await host.mount(request, context);
    await shows('a.txt', 'A');
  };
  const states = {
    empty: async (host: Host) => {
      await clear(host);
      for (const layer of [top, upper, base]) await host.removeLayer(layer, context);
    },
    below: async (host: Host) => {
      await clear(host);
      for (const layer of [top, upper]) await host.removeLayer(layer, context);
      await build(host, [base]);
    },
    almost: async (host: Host) => {
      await clear(host);
      await host.removeLayer(top, context);
      await build(host, [base, upper]);
    },
    built: async (host: Host) => {
      await clear(host);
      await buildAll(host);
    },
    unmerged: async (host: Host) => {
      await clear(host);
      await build(host, requests);
      await host.removeMerge(top, context);
    },
    shown: async (host: Host) => {
      await states.built(host);
      await show(host, view);
    },
    bare: async (host: Host) => {
      await states.built(host);
      await rm(`${root}\\scratches`, { recursive: true, force: true });
    },
    prepared: async (host: Host) => {
      await states.built(host);
      await host.prepareSnapshot(snapshot, context);
    },
    written: async (host: Host) => {
      await states.prepared(host);
      await show(host, writable);
      await writeFile(`${path}\\written.txt`, 'kept');
    },
    left: async (host: Host) => {
      await states.written(host);
      await host.dismount(writable.volumeGuid, context);
    },
  };

  const writing: (Effect | false)[] = [
    format === 'WCIFS' && { name: 'unpack base', prepare: states.empty, run: (host) => build(host, [base]) },
    { name: 'unpack', prepare: states.below, run: (host) => build(host, [upper]) },
    merges && { name: 'unpack the third', prepare: states.almost, run: (host) => build(host, [top]) },
    merges && { name: 'merge', prepare: states.unmerged, run: mergeAll },
    { name: 'mount', prepare: states.built, run: (host) => show(host, view) },
  ];
  // Seals make no difference to the rest.
  const others: Effect[] = [
    {
      name: 'dismount',
      prepare: states.shown,
      run: (host) => host.dismount(view.volumeGuid, context),
      isUndoing: true,
    },
    {
      name: 'replace under a mount',
      prepare: async (host) => {
        await states.shown(host);
        await damage(root, top);
      },
      run: async (host) => {
        await buildAll(host);
        await show(host, view);
      },
      // What was shown can be hidden still, and the layer half gone.
      isUndoing: true,
    },
    {
      name: 'export',
      prepare: states.built,
      run: (host) => host.exportLayer(top, `${BLOBS}\\${name}.tar`, context),
    },
    {
      name: 'remove',
      prepare: states.built,
      run: (host) => host.removeLayer(top, context),
      isUndoing: true,
    },
    {
      name: 'prepare view',
      prepare: states.bare,
      run: (host) => host.prepareSnapshot({ key: KEY, kind: 'view', chain, format }, context),
    },
    { name: 'prepare', prepare: states.bare, run: (host) => host.prepareSnapshot(snapshot, context) },
    {
      name: 'mount writable',
      prepare: states.left,
      run: async (host) => {
        await show(host, writable);
        await shows('written.txt', 'kept');
      },
    },
    {
      name: 'dismount writable',
      prepare: states.written,
      run: (host) => host.dismount(writable.volumeGuid, context),
      isUndoing: true,
    },
    {
      name: 'export snapshot',
      prepare: states.left,
      run: (host) => host.exportSnapshot(KEY, `${BLOBS}\\${name}.tar`, context),
    },
    {
      name: 'commit',
      prepare: states.left,
      run: async (host) => {
        const isThere = (await look(host)).snapshots.length > 0;
        if (isThere) await host.commitSnapshot(KEY, {}, context);
      },
    },
    {
      name: 'remove snapshot',
      prepare: states.left,
      run: (host) => host.removeSnapshot(KEY, context),
      isUndoing: true,
    },
  ];
  const effects = seal ? writing : [...writing, ...others];
  return effects.filter((effect) => effect !== false).map((effect) => named(effect, family));
}

function besides(files: LayerFiles, format: LayerFormat): readonly LayerItem[] {
  if (files === LAYERS[0]) return format === 'WCIFS' ? UTILITY_VM : HIVES;
  return files === LAYERS[1] && format !== 'WCIFS' ? [DELTA] : [];
}

/** Loses a file of a layer. */
async function damage(root: string, { chainId, format }: UnpackRequest): Promise<void> {
  const snapshots = `${root}\\snapshots`;
  const hex = hexOf(chainId);
  if (format === 'BlockCIM') return rm(`${snapshots}\\${hex}.block\\layer.bcim`);
  if (format === 'WCIFS')
    return rm(`${snapshots}\\${hex}.wcifs\\${hex.slice(0, 32)}\\Files`, { recursive: true });
  const record = JSON.parse(await readFile(`${snapshots}\\${hex}\\layer.json`, 'utf8')) as {
    cimFiles: { name: string }[];
  };
  const region = record.cimFiles.find(({ name }) => name.startsWith('region_'));
  return rm(`${root}\\cim-layers\\${region?.name}`);
}
