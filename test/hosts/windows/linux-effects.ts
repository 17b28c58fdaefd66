/** What becomes of Linux layers and of scratches over them: cimlet writes their disks itself, and a utility VM shows them. */

import { mkdir, writeFile } from 'node:fs/promises';
import type { Host, MountRequest, SnapshotRequest, UnpackRequest } from '../../../src/hosts/host.ts';
import { chainIds, mountVolumeGuid } from '../../../src/hosts/identity.ts';
import { type LayerFiles, last, look } from '../../conformance/host.ts';
import { layerItems, writeLayerBlob } from '../../support/host-layers.ts';
import { BLOBS, build, context, type Effect, named } from './effect.ts';

const SYSTEMS = 'C:\\doubles\\systems';
const LAYERS: readonly LayerFiles[] = [{ 'etc/a': 'A' }, { 'etc/b': 'B' }];
const KEY = 'work';
const SHARER = 'sharer';

export async function linuxEffects(name: string): Promise<Effect[]> {
  const vm = `vm-${name}`;
  await startVm(vm);
  const requests = await requestsOf(LAYERS);
  const top = last(requests);
  const chain = requests.map(({ chainId }) => chainId);
  const own = new Set<string>(chain);
  const view: MountRequest = {
    volumeGuid: mountVolumeGuid(`view ${name}`),
    path: '/run/gcs/c/app/rootfs',
    chain,
    format: 'LCOW',
    access: 'ReadOnly',
    view: 'Kernel',
    utilityVM: vm,
  };
  const writable: MountRequest = {
    ...view,
    volumeGuid: mountVolumeGuid(`writable ${name}`),
    path: '/run/gcs/c/work/rootfs',
    access: 'ReadWrite',
    snapshot: KEY,
  };
  const snapshot: SnapshotRequest = {
    key: KEY,
    kind: 'active',
    chain,
    format: 'LCOW',
    scratch: { bytes: 64 * 2 ** 20 },
  };
  const sharer: SnapshotRequest = { ...snapshot, key: SHARER, scratch: { shareWith: KEY } };

  const mount = (request: MountRequest) => (host: Host) => host.mount(request, context);
  const dismount = (request: MountRequest) => (host: Host) => host.dismount(request.volumeGuid, context);
  const prepare = (request: SnapshotRequest) => (host: Host) => host.prepareSnapshot(request, context);
  const clear = async (host: Host) => {
    for (const request of [view, writable]) await dismount(request)(host);
    for (const key of [SHARER, KEY]) await host.removeSnapshot(key, context);
    for (const layer of (await look(host)).layers)
      if (!own.has(layer.chainId)) await host.removeLayer(layer, context);
  };
  const states = {
    below: async (host: Host) => {
      await clear(host);
      await host.removeLayer(top, context);
      await build(host, requests.slice(0, -1));
    },
    built: async (host: Host) => {
      await clear(host);
      await build(host, requests);
    },
    shown: async (host: Host) => {
      await states.built(host);
      await mount(view)(host);
    },
    prepared: async (host: Host) => {
      await states.built(host);
      await prepare(snapshot)(host);
    },
    shared: async (host: Host) => {
      await states.prepared(host);
      await prepare(sharer)(host);
    },
    writing: async (host: Host) => {
      await states.prepared(host);
      await mount(writable)(host);
    },
  };

  const effects: Effect[] = [
    { name: 'unpack', prepare: states.below, run: (host) => build(host, [top]) },
    { name: 'mount', prepare: states.built, run: mount(view) },
    { name: 'dismount', prepare: states.shown, run: dismount(view), isUndoing: true },
    {
      name: 'export',
      prepare: states.built,
      run: (host) => host.exportLayer(top, `${BLOBS}\\${name}.tar`, context),
    },
    { name: 'remove', prepare: states.built, run: (host) => host.removeLayer(top, context), isUndoing: true },
    {
      name: 'prepare view',
      prepare: states.built,
      run: prepare({ key: KEY, kind: 'view', chain, format: 'LCOW' }),
    },
    { name: 'prepare', prepare: states.built, run: prepare(snapshot) },
    { name: 'prepare sharer', prepare: states.prepared, run: prepare(sharer) },
    {
      name: 'remove sharer',
      prepare: states.shared,
      run: (host) => host.removeSnapshot(SHARER, context),
      isUndoing: true,
    },
    { name: 'mount writable', prepare: states.prepared, run: mount(writable) },
    { name: 'dismount writable', prepare: states.writing, run: dismount(writable), isUndoing: true },
    {
      name: 'export snapshot',
      prepare: states.prepared,
      run: (host) => host.exportSnapshot(KEY, `${BLOBS}\\${name}.tar`, context),
    },
    {
      name: 'commit',
      prepare: states.prepared,
      run: async (host) => {
        const isThere = (await look(host)).snapshots.length > 0;
        if (isThere) await host.commitSnapshot(KEY, {}, context);
      },
    },
    {
      name: 'remove snapshot',
      prepare: states.prepared,
      run: (host) => host.removeSnapshot(KEY, context),
      isUndoing: true,
    },
  ];
  return effects.map((effect) => named(effect, 'LCOW'));
}

async function requestsOf(layers: readonly LayerFiles[]): Promise<UnpackRequest[]> {
  const blobs = await Promise.all(layers.map((files) => writeLayerBlob(BLOBS, layerItems(files))));
  const chain = chainIds(blobs.map(({ diffId }) => diffId));
  return blobs.map(({ blob, diffId }, index) => ({
    chainId: last(chain.slice(0, index + 1)),
    diffId,
    parents: chain.slice(0, index),
    format: 'LCOW',
    blob,
  }));
}

async function startVm(id: string): Promise<void> {
  await mkdir(SYSTEMS, { recursive: true });
  const basic = { Id: id, SystemType: 'VirtualMachine', RuntimeOsType: 'Linux', RuntimeId: `run of ${id}` };
  await writeFile(`${SYSTEMS}\\${id}.json`, JSON.stringify(basic));
  await writeFile(`${SYSTEMS}\\${id}.guest.json`, '{"GuestConnectionInfo":{}}');
}
