/** What every host that can must do with snapshots by key: prepared, written to, committed, exported, removed. */

import assert from 'node:assert/strict';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Capability, Host, MountRequest, SnapshotRequest, UnpackRequest } from '../../src/hosts/host.ts';
import { chainIdOn, mountVolumeGuid } from '../../src/hosts/identity.ts';
import {
  build,
  type ConformanceCase,
  context,
  first,
  type HostFixture,
  type LayerFiles,
  last,
  look,
  rejects,
  stack,
} from './host.ts';

const BASE: LayerFiles = { 'a.txt': 'a', 'dir/b.txt': 'b', 'dir/c.txt': 'c' };

/** The fixture of a host that can be written to. */
interface WritableFixture extends HostFixture {
  writeFile(path: string, content: string): Promise<void>;
  removeFile(path: string): Promise<void>;
}

interface Prepared {
  host: Host;
  requests: UnpackRequest[];
  snapshot: SnapshotRequest;
  mount: MountRequest;
}

function requestFor(
  fixture: HostFixture,
  requests: readonly UnpackRequest[],
  key: string,
  scratch?: SnapshotRequest['scratch'],
): SnapshotRequest {
  const chain = requests.map(({ chainId }) => chainId);
  return { key, kind: 'active', chain, format: fixture.format ?? 'ForkedCIM', scratch };
}

function mountFor(fixture: HostFixture, { key, chain, format }: SnapshotRequest, name = key): MountRequest {
  return {
    volumeGuid: mountVolumeGuid(name),
    path: `${fixture.workspace}/${name}`,
    chain,
    format,
    access: 'ReadWrite',
    view: 'Kernel',
    snapshot: key,
  };
}

function readOnly(fixture: HostFixture, requests: readonly UnpackRequest[], name: string): MountRequest {
  const { snapshot: _, ...request } = mountFor(fixture, requestFor(fixture, requests, name));
  return { ...request, access: 'ReadOnly' };
}

/** A committed chain of one layer, and an active snapshot on it. */
async function prepare(fixture: HostFixture, scratch?: SnapshotRequest['scratch']): Promise<Prepared> {
  const { host } = fixture;
  const requests = await stack(fixture, BASE);
  await build(host, requests);
  const snapshot = requestFor(fixture, requests, 'work', scratch);
  await host.prepareSnapshot(snapshot, context);
  return { host, requests, snapshot, mount: mountFor(fixture, snapshot) };
}

async function change(fixture: WritableFixture, at: string): Promise<void> {
  await fixture.writeFile(`${at}/new.txt`, 'new');
  await fixture.writeFile(`${at}/a.txt`, 'changed');
  await fixture.removeFile(`${at}/dir/c.txt`);
}

async function expectChanged(fixture: HostFixture, at: string): Promise<void> {
  const names = ['new.txt', 'a.txt', 'dir/b.txt', 'dir/c.txt'];
  const contents = [];
  for (const name of names) contents.push(await fixture.readFile(`${at}/${name}`));
  assert.deepEqual(contents, ['new', 'changed', 'b', undefined]);
}

interface SnapshotCase {
  name: string;
  needs: readonly Capability[];
  run(fixture: WritableFixture): Promise<void>;
}

const cases: readonly SnapshotCase[] = [
  {
    name: 'what is written to an active snapshot outlives its mount and its host; the chain stays as it is',
    needs: ['active'],
    run: async (fixture) => {
      const { host, requests, mount } = await prepare(fixture);
      const mounted = await host.mount(mount, context);
      assert.deepEqual([mounted.access, mounted.snapshot], ['ReadWrite', 'work']);
      assert.equal(await fixture.readFile(`${mount.path}/dir/b.txt`), 'b');
      await change(fixture, mount.path);
      await expectChanged(fixture, mount.path);
      await host.mount(mount, context);
      await host.dismount(mount.volumeGuid, context);
      const view = readOnly(fixture, requests, 'view');
      await host.mount(view, context);
      assert.equal(await fixture.readFile(`${view.path}/a.txt`), 'a');
      assert.equal(await fixture.readFile(`${view.path}/dir/c.txt`), 'c');
      await host.dismount(view.volumeGuid, context);
      const next = await fixture.reopen();
      await next.mount(mount, context);
      await expectChanged(fixture, mount.path);
      await next.dismount(mount.volumeGuid, context);
      assert.deepEqual((await look(next)).leftovers, []);
    },
  },
  {
    name: 'a writable mount taken away by hand is mounted again with its data',
    needs: ['active'],
    run: async (fixture) => {
      const { host, mount } = await prepare(fixture);
      const mounted = await host.mount(mount, context);
      await change(fixture, mount.path);
      await fixture.unmountByHand(mounted);
      assert.equal(first((await look(host)).mounts).state, 'missing');
      await host.mount(mount, context);
      assert.equal(first((await look(host)).mounts).state, 'mounted');
      await expectChanged(fixture, mount.path);
      await host.dismount(mount.volumeGuid, context);
    },
  },
  {
    name: 'preparing a snapshot again does nothing; one of that key made otherwise is refused',
    needs: ['active'],
    run: async (fixture) => {
      const { host, snapshot } = await prepare(fixture);
      await host.prepareSnapshot(snapshot, context);
      const view: SnapshotRequest = { ...snapshot, kind: 'view', scratch: undefined };
      await rejects(host.prepareSnapshot(view, context), 'already-exists');
      await rejects(host.prepareSnapshot({ ...snapshot, chain: [] }, context), 'already-exists');
      assert.equal((await look(host)).snapshots.length, 1);
    },
  },
  {
    name: 'a snapshot needs committed layers and a request that makes sense',
    needs: ['active'],
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await stack(fixture, BASE);
      const snapshot = requestFor(fixture, requests, 'work');
      await rejects(host.prepareSnapshot(snapshot, context), 'failed-precondition');
      await build(host, requests);
      await rejects(host.prepareSnapshot({ ...snapshot, key: '' }, context), 'invalid-manifest');
      await rejects(
        host.prepareSnapshot({ ...snapshot, kind: 'view', chain: [] }, context),
        'invalid-manifest',
      );
      const shared = { shareWith: 'nobody' };
      await rejects(host.prepareSnapshot({ ...snapshot, scratch: shared }, context), 'not-found');
      const sized = { shareWith: 'nobody', bytes: 2 ** 30 };
      await rejects(host.prepareSnapshot({ ...snapshot, scratch: sized }, context), 'invalid-manifest');
      const state = await look(host);
      assert.deepEqual([state.snapshots, state.leftovers], [[], []]);
    },
  },
  {
    name: 'a writable mount needs an active snapshot of its chain, which is mounted nowhere else',
    needs: ['active'],
    run: async (fixture) => {
      const { host, requests, mount, snapshot } = await prepare(fixture);
      await host.prepareSnapshot({ ...snapshot, key: 'view', kind: 'view' }, context);
      await host.prepareSnapshot({ ...snapshot, key: 'empty', chain: [] }, context);
      const { snapshot: _, ...without } = mount;
      await rejects(host.mount(without, context), 'failed-precondition', /snapshot/);
      await rejects(host.mount({ ...mount, snapshot: 'nobody' }, context), 'not-found');
      await rejects(host.mount({ ...mount, snapshot: 'view' }, context), 'failed-precondition');
      await rejects(host.mount({ ...mount, snapshot: 'empty' }, context), 'failed-precondition');
      assert.deepEqual((await look(host)).mounts, []);
      await host.mount(mount, context);
      await rejects(host.mount(mountFor(fixture, snapshot, 'other'), context), 'failed-precondition');
      await rejects(host.removeLayer(first(requests), context), 'failed-precondition');
      await host.dismount(mount.volumeGuid, context);
    },
  },
  {
    name: 'a snapshot is not removed while it is mounted, nor a layer that it needs',
    needs: ['active'],
    run: async (fixture) => {
      const { host, requests, mount } = await prepare(fixture);
      await host.mount(mount, context);
      await rejects(host.removeSnapshot('work', context), 'failed-precondition');
      await host.dismount(mount.volumeGuid, context);
      await rejects(host.removeLayer(first(requests), context), 'failed-precondition', /work/);
      await host.removeSnapshot('work', context);
      await host.removeSnapshot('work', context);
      await host.removeLayer(first(requests), context);
      const state = await look(host);
      assert.deepEqual([state.snapshots, state.layers, state.leftovers], [[], [], []]);
    },
  },
  {
    name: 'snapshots share a scratch, which stays as long as one of them does',
    needs: ['active'],
    run: async (fixture) => {
      const { host, snapshot, mount } = await prepare(fixture);
      const second = { ...snapshot, key: 'second', scratch: { shareWith: 'work' } };
      if (fixture.diskForEachSnapshot === true)
        return rejects(host.prepareSnapshot(second, context), 'unsupported-host', /one scratch/);
      await host.prepareSnapshot(second, context);
      const other = mountFor(fixture, second);
      await host.mount(mount, context);
      await host.mount(other, context);
      await change(fixture, mount.path);
      await fixture.writeFile(`${other.path}/new.txt`, 'other');
      await expectChanged(fixture, mount.path);
      assert.equal(await fixture.readFile(`${other.path}/a.txt`), 'a');
      await host.dismount(mount.volumeGuid, context);
      await rejects(host.removeSnapshot('work', context), 'failed-precondition', /second/);
      await host.dismount(other.volumeGuid, context);
      await host.removeSnapshot('second', context);
      await host.mount(mount, context);
      await expectChanged(fixture, mount.path);
      await host.dismount(mount.volumeGuid, context);
      await host.removeSnapshot('work', context);
      assert.deepEqual((await look(host)).snapshots, []);
    },
  },
  {
    name: 'snapshots are observed with what they are and hold, and say how others would mount them',
    needs: ['active'],
    run: async (fixture) => {
      const { host, requests, snapshot, mount } = await prepare(fixture);
      await host.prepareSnapshot({ ...snapshot, key: 'a view', kind: 'view' }, context);
      await host.mount(mount, context);
      await change(fixture, mount.path);
      await host.dismount(mount.volumeGuid, context);
      const { snapshots } = await look(host);
      assert.deepEqual(
        snapshots.map(({ key, kind, chain, fault }) => [key, kind, chain, fault]),
        [
          ['a view', 'view', snapshot.chain, undefined],
          ['work', 'active', snapshot.chain, undefined],
        ],
      );
      assert(last(snapshots).files > 0);
      assert((await host.snapshotUsage('work', context)).files > 0);
      await rejects(host.snapshotUsage('nobody', context), 'not-found');
      assert((await host.snapshotMounts('work', context)).length > 0);
      assert((await host.snapshotMounts('a view', context)).every(({ options }) => !options.includes('rw')));
      await rejects(host.snapshotMounts('nobody', context), 'not-found');
      await fixture.damageLayer(first(requests));
      assert.match(first((await look(host)).snapshots).fault ?? '', /layer/);
    },
  },
  {
    name: 'committing turns a snapshot into a layer of its chain',
    needs: ['active', 'commit'],
    run: async (fixture) => {
      const { host, requests, snapshot, mount } = await prepare(fixture);
      await host.prepareSnapshot({ ...snapshot, key: 'view', kind: 'view' }, context);
      await host.mount(mount, context);
      await change(fixture, mount.path);
      await rejects(host.commitSnapshot('work', {}, context), 'failed-precondition');
      await host.dismount(mount.volumeGuid, context);
      await rejects(host.commitSnapshot('view', {}, context), 'failed-precondition');
      await rejects(host.commitSnapshot('nobody', {}, context), 'not-found');
      const layer = await host.commitSnapshot('work', {}, context);
      assert.equal(layer.parent, first(requests).chainId);
      assert.equal(layer.chainId, chainIdOn(first(requests).chainId, layer.diffId));
      const state = await look(host);
      assert.deepEqual(
        state.snapshots.map(({ key }) => key),
        ['view'],
      );
      assert.deepEqual(state.leftovers, []);
      const chain = [...snapshot.chain, layer.chainId];
      if (snapshot.format === 'BlockCIM') await host.mergeChain({ chain, format: snapshot.format }, context);
      const view = { ...readOnly(fixture, requests, 'committed'), chain };
      await host.mount(view, context);
      await expectChanged(fixture, view.path);
      await host.dismount(view.volumeGuid, context);
    },
  },
  {
    name: 'the tar of a snapshot gives the layer that committing gives',
    needs: ['active', 'commit'],
    run: async (fixture) => {
      const { host, mount } = await prepare(fixture);
      await host.mount(mount, context);
      await change(fixture, mount.path);
      await host.dismount(mount.volumeGuid, context);
      const file = join(fixture.files, 'diff.tar');
      const diffId = await host.exportSnapshot('work', file, context);
      assert((await stat(file)).size > 0);
      assert.equal((await readFile(file)).subarray(257, 262).toString(), 'ustar');
      assert.equal(await host.exportSnapshot('work', file, context), diffId);
      await rejects(host.exportSnapshot('nobody', file, context), 'not-found');
      assert.equal((await host.commitSnapshot('work', {}, context)).diffId, diffId);
    },
  },
  {
    name: 'a snapshot of nothing becomes a base layer',
    needs: ['active', 'commit'],
    run: async (fixture) => {
      const { host } = fixture;
      const snapshot = requestFor(fixture, [], 'base');
      await host.prepareSnapshot(snapshot, context);
      const mount = mountFor(fixture, snapshot);
      await host.mount(mount, context);
      assert.equal(first((await look(host)).mounts).state, 'mounted');
      await fixture.writeFile(`${mount.path}/first.txt`, 'first');
      await host.dismount(mount.volumeGuid, context);
      const layer = await host.commitSnapshot('base', {}, context);
      assert.equal(layer.parent, undefined);
      const { snapshot: _, ...view } = mount;
      await host.mount({ ...view, chain: [layer.chainId], access: 'ReadOnly' }, context);
      assert.equal(await fixture.readFile(`${mount.path}/first.txt`), 'first');
      await host.dismount(mount.volumeGuid, context);
    },
  },
];

/** Each with every format that a snapshot can be of. */
export const snapshotCases: readonly ConformanceCase[] = (
  ['ForkedCIM', 'BlockCIM', 'WCIFS'] as const
).flatMap((format) =>
  cases.map(({ name, needs, run }) => ({
    name: `${name} (${format})`,
    needs: [
      `${format}.write` as const,
      `${format}.mount` as const,
      ...(format === 'BlockCIM' ? (['merge'] as const) : []),
      'view.Kernel' as const,
      ...needs,
    ],
    run: async (fixture) => {
      const { writeFile, removeFile } = fixture;
      if (writeFile === undefined || removeFile === undefined) return;
      await run({ ...fixture, writeFile, removeFile, ...(format === 'ForkedCIM' ? {} : { format }) });
    },
  })),
);
