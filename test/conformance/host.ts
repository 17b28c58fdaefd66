/**
 * What every host must do: one case or more for each sentence of src/hosts/host.ts. The cases know no test runner, so
 * that they can also be driven inside another process (a host that only runs elsewhere).
 */

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import type {
  Capability,
  ChainId,
  DiffId,
  Digest,
  EffectContext,
  Host,
  HostState,
  LayerBlob,
  LayerRef,
  MountedView,
  MountRequest,
  Progress,
  UnpackRequest,
  ViewKind,
} from '../../src/hosts/host.ts';
import { chainIds, mountVolumeGuid } from '../../src/hosts/identity.ts';

/** A layer's files by path below the image's root; null is a whiteout. */
export type LayerFiles = Record<string, string | null>;

export interface LayerSource {
  blob: LayerBlob;
  diffId: DiffId;
}

/** A host to test and the means to do to it, behind its back, what the world does. */
export interface HostFixture {
  host: Host;
  /** A host of the same state, as a new process would open it after this one was killed. */
  reopen(): Promise<Host>;
  /** How cases mount that aren't about one kind of view. */
  view: ViewKind;
  /** Forked images hold on to the very files that they were forked from: one that is built anew takes its children along. */
  forksHoldOnToFiles?: boolean;
  /** What is written to one snapshot is kept apart from all others by a disk. */
  diskForEachSnapshot?: boolean;
  /** What stands in for the file system keeps not all of a file's times, so that no two tars of a layer are the same. */
  keepsNotAllTimes?: boolean;
  /** Of layers in cases that are about any format; forked CIMs unless told. */
  format?: 'BlockCIM' | 'WCIFS';
  /** A directory outside the root, which exists, to mount below. */
  workspace: string;
  /** A real directory for the files that the host writes where it is told. */
  files: string;
  makeLayer(files: LayerFiles): Promise<LayerSource>;
  /** A file's content at a path, undefined when there is none. Sees through mounts. */
  readFile(path: string): Promise<string | undefined>;
  /** Through a writable mount; of hosts that have such. */
  writeFile?(path: string, content: string): Promise<void>;
  removeFile?(path: string): Promise<void>;
  makeFile(path: string): Promise<void>;
  makeDirectory(path: string): Promise<void>;
  /** A digest of everything below the root, names and times included. */
  fingerprint(): Promise<string>;
  unmountByHand(view: MountedView): Promise<void>;
  /** Mounts something else over a view; the result takes it away again. */
  coverByHand?(view: MountedView): Promise<() => Promise<void>>;
  /** Loses a file of the layer. */
  damageLayer(ref: LayerRef): Promise<void>;
  /** Loses the layer's snapshot folder. */
  loseSnapshot(ref: LayerRef): Promise<void>;
  /** Loses the merged CIM's file on a topmost layer. */
  damageMerge?(top: LayerRef): Promise<void>;
}

export interface ConformanceCase {
  name: string;
  needs: readonly Capability[];
  run(fixture: HostFixture): Promise<void>;
}

const FORMAT = 'ForkedCIM';
const LAYERS: readonly Capability[] = ['ForkedCIM.write'];
const MOUNTS: readonly Capability[] = ['ForkedCIM.write', 'ForkedCIM.mount'];

export const context: EffectContext = { signal: new AbortController().signal };

export async function look(host: Host, paths: readonly string[] = []): Promise<HostState> {
  return host.observe({ signal: context.signal, paths });
}

/** Unpack requests for a stack of layers, base first. */
export async function stack(fixture: HostFixture, ...layers: LayerFiles[]): Promise<UnpackRequest[]> {
  const sources: LayerSource[] = [];
  for (const files of layers) sources.push(await fixture.makeLayer(files));
  const chain = chainIds(sources.map(({ diffId }) => diffId));
  return sources.map(({ blob, diffId }, index) => ({
    chainId: chain[index] as ChainId,
    diffId,
    parents: chain.slice(0, index),
    format: fixture.format ?? FORMAT,
    blob,
  }));
}

export async function build(host: Host, requests: readonly UnpackRequest[]): Promise<void> {
  for (const request of requests) {
    await host.unpackLayer(request, context);
    await host.commitLayer(request, context);
  }
}

/** Builds layers, and what it takes to show each of them: the merged CIM on a block layer that has parents. */
async function buildShown(host: Host, requests: readonly UnpackRequest[]): Promise<void> {
  await build(host, requests);
  for (const { chainId, parents, format } of requests)
    if (format === 'BlockCIM' && parents.length > 0)
      await host.mergeChain({ chain: [...parents, chainId], format }, context);
}

/** What has to be built anew with a layer. */
function takenAlong(
  fixture: HostFixture,
  layer: UnpackRequest,
  requests: readonly UnpackRequest[],
): readonly UnpackRequest[] {
  return areBound(fixture) ? requests : [layer];
}

/** Whether layers are bound to the very files of those below. */
function areBound({ forksHoldOnToFiles, format }: HostFixture): boolean {
  return forksHoldOnToFiles === true && format === undefined;
}

export function mountOf(fixture: HostFixture, requests: readonly UnpackRequest[], name = 'm'): MountRequest {
  return {
    volumeGuid: mountVolumeGuid(name),
    path: `${fixture.workspace}/${name}`,
    chain: requests.map(({ chainId }) => chainId),
    format: requests[0]?.format ?? FORMAT,
    access: 'ReadOnly',
    view: fixture.view,
  };
}

export function first<T>(items: readonly T[]): T {
  const [item] = items;
  assert(item !== undefined);
  return item;
}

export function last<T>(items: readonly T[]): T {
  const item = items.at(-1);
  assert(item !== undefined);
  return item;
}

export async function rejects(promise: Promise<unknown>, code: string, message?: RegExp): Promise<void> {
  await assert.rejects(promise, (error: Error & { code?: string }) => {
    assert.equal(error.code, code, `expected ${code}, got ${error.code}: ${error.stack}`);
    if (message !== undefined) assert.match(error.message, message);
    return true;
  });
}

export function otherDigest(text: string): string {
  return `sha256:${createHash('sha256').update(text).digest('hex')}`;
}

export const BASE: LayerFiles = { 'a.txt': 'a', 'dir/b.txt': 'b', 'dir/c.txt': 'c'.repeat(10_000) };
export const UPPER: LayerFiles = { 'a.txt': 'A', 'dir/b.txt': null, 'new/d.txt': 'd' };

export const hostCases: readonly ConformanceCase[] = [
  {
    name: 'names every capability, with a reason for each that is not available',
    needs: [],
    run: async ({ host }) => {
      const capabilities = await host.capabilities();
      for (const [name, state] of Object.entries(capabilities))
        if (!state.available) assert.match(state.reason ?? '', /\S.*[^.]$/, name);
      assert.deepEqual((await look(host)).capabilities, capabilities);
    },
  },
  {
    name: "refuses what isn't available with the capability's reason",
    needs: [],
    run: async (fixture) => {
      const { host } = fixture;
      const capabilities = await host.capabilities();
      const [request] = await stack(fixture, BASE);
      assert(request !== undefined);
      const { chainId } = request;
      const chain = [chainId];
      const asks: [Capability, () => Promise<unknown>][] = [
        ['BlockCIM.write', () => host.unpackLayer({ ...request, format: 'BlockCIM' }, context)],
        ['WCIFS.write', () => host.unpackLayer({ ...request, format: 'WCIFS' }, context)],
        ['LCOW.write', () => host.unpackLayer({ ...request, format: 'LCOW' }, context)],
        ['BlockCIM.mount', () => host.mount({ ...mountOf(fixture, [request]), format: 'BlockCIM' }, context)],
        ['merge', () => host.mergeChain({ chain: [chainId, chainId], format: 'BlockCIM' }, context)],
        ['seal', () => host.unpackLayer({ ...request, seal: true }, context)],
        [
          'export',
          () => host.exportLayer({ chainId, format: FORMAT }, `${fixture.workspace}/x.tar`, context),
        ],
        ['active', () => host.prepareSnapshot({ key: 'k', kind: 'active', chain, format: FORMAT }, context)],
        ['commit', () => host.commitSnapshot('k', {}, context)],
        ['view.Kernel', () => host.mount({ ...mountOf(fixture, [request]), view: 'Kernel' }, context)],
        ['view.Extracted', () => host.mount({ ...mountOf(fixture, [request]), view: 'Extracted' }, context)],
      ];
      for (const [capability, ask] of asks) {
        const { available, reason } = capabilities[capability];
        if (available) continue;
        const error = await ask().then(
          () => assert.fail(`${capability} is not available, yet it worked`),
          (thrown: Error & { code?: string }) => thrown,
        );
        assert.equal(error.code, 'unsupported-host', `${capability}: ${error.stack}`);
        assert(error.message.includes(reason ?? '?'), `${capability}: ${error.message}`);
      }
      assert.deepEqual((await look(host)).leftovers, []);
    },
  },
  {
    name: 'observing an unused root finds nothing and changes nothing',
    needs: [],
    run: async (fixture) => {
      const before = await fixture.fingerprint();
      const state = await look(fixture.host);
      assert.equal(state.formatVersion, 1);
      assert.equal(state.root, fixture.host.root);
      assert.equal(state.host.kind, fixture.host.kind);
      assert.deepEqual([state.layers, state.merges, state.mounts, state.leftovers], [[], [], [], []]);
      assert.deepEqual(state.paths, {});
      assert.equal(await fixture.fingerprint(), before);
    },
  },
  {
    name: 'observing a used root changes nothing',
    needs: MOUNTS,
    run: async (fixture) => {
      const requests = await stack(fixture, BASE, UPPER);
      await buildShown(fixture.host, requests);
      await fixture.host.mount(mountOf(fixture, requests), context);
      const before = await fixture.fingerprint();
      await look(fixture.host, [`${fixture.workspace}/m`, `${fixture.workspace}/none`]);
      assert.equal(await fixture.fingerprint(), before);
    },
  },
  {
    name: 'says what is at each path asked for',
    needs: [],
    run: async (fixture) => {
      const { host, workspace } = fixture;
      await fixture.makeDirectory(`${workspace}/empty`);
      await fixture.makeDirectory(`${workspace}/full`);
      await fixture.makeFile(`${workspace}/full/file`);
      const paths = ['absent', 'absent/below', 'empty', 'full', 'full/file'].map(
        (name) => `${workspace}/${name}`,
      );
      const state = await look(host, paths);
      assert.deepEqual(Object.keys(state.paths).sort(), [...paths].sort());
      assert.deepEqual(
        paths.map((path) => state.paths[path]?.kind),
        ['absent', 'absent', 'empty-directory', 'directory', 'file'],
      );
    },
  },
  {
    name: 'a layer is invisible until it is committed',
    needs: LAYERS,
    run: async (fixture) => {
      const { host } = fixture;
      const request = first(await stack(fixture, BASE));
      await host.unpackLayer(request, context);
      assert.deepEqual((await look(host)).layers, []);
      const committed = await host.commitLayer(request, context);
      assert.deepEqual((await look(host)).layers, [{ ...committed, faults: [] }]);
      const { chainId, diffId, format, parent, bytes, files, builder } = committed;
      assert.deepEqual(
        { chainId, diffId, format, parent },
        { chainId: request.chainId, diffId: request.diffId, format: request.format, parent: undefined },
      );
      assert(bytes > 0 && files > 0 && builder !== '');
    },
  },
  {
    name: 'repeating unpack and commit changes nothing',
    needs: LAYERS,
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await stack(fixture, BASE, UPPER);
      await host.unpackLayer(first(requests), context);
      await host.unpackLayer(first(requests), context);
      await buildShown(host, requests);
      const before = await look(host);
      const fingerprint = await fixture.fingerprint();
      await buildShown(host, requests);
      assert.deepEqual((await look(host)).layers, before.layers);
      assert.deepEqual((await look(host)).leftovers, []);
      assert.equal(await fixture.fingerprint(), fingerprint);
    },
  },
  {
    name: 'commit refuses what was not unpacked',
    needs: LAYERS,
    run: async (fixture) => {
      const request = first(await stack(fixture, BASE));
      await rejects(fixture.host.commitLayer(request, context), 'failed-precondition');
      assert.deepEqual((await look(fixture.host)).layers, []);
    },
  },
  {
    name: 'a layer unpacked by a process that died is committed by the next',
    needs: LAYERS,
    run: async (fixture) => {
      const request = first(await stack(fixture, BASE));
      await fixture.host.unpackLayer(request, context);
      const next = await fixture.reopen();
      await next.commitLayer(request, context);
      assert.equal((await look(next)).layers.length, 1);
      assert.deepEqual((await look(next)).leftovers, []);
    },
  },
  {
    name: 'what a dead process left is listed, and exactly that is cleaned',
    needs: LAYERS,
    run: async (fixture) => {
      const [base, upper] = await stack(fixture, BASE, UPPER);
      assert(base !== undefined && upper !== undefined);
      await buildShown(fixture.host, [base]);
      await fixture.host.unpackLayer(upper, context);
      const next = await fixture.reopen();
      const { leftovers, layers } = await look(next);
      assert(leftovers.length > 0);
      for (const { path, reason, bytes } of leftovers) assert(path !== '' && reason !== '' && bytes >= 0);
      const paths = ({ leftovers: list }: Pick<HostState, 'leftovers'>) =>
        list.map(({ path }) => path).sort();
      assert.deepEqual(paths({ leftovers: await next.cleanLeftovers(context) }), paths({ leftovers }));
      assert.deepEqual((await look(next)).leftovers, []);
      assert.deepEqual((await look(next)).layers, layers);
      assert.deepEqual(await next.cleanLeftovers(context), []);
      await rejects(next.commitLayer(upper, context), 'failed-precondition');
      await buildShown(next, [upper]);
      assert.equal((await look(next)).layers.length, 2);
    },
  },
  {
    name: 'bad blobs are corrupt and leave nothing',
    needs: LAYERS,
    run: async (fixture) => {
      const { host } = fixture;
      const request = first(await stack(fixture, BASE));
      const wrong = otherDigest('something else');
      const bad: UnpackRequest[] = [
        { ...request, blob: { ...request.blob, digest: wrong as Digest } },
        { ...request, diffId: wrong as DiffId },
        { ...request, blob: { ...request.blob, size: request.blob.size - 700 } },
      ];
      for (const unpack of bad) {
        await rejects(host.unpackLayer(unpack, context), 'corrupt');
        await rejects(host.commitLayer(unpack, context), 'failed-precondition');
        const { layers, leftovers } = await look(host);
        assert.deepEqual([layers, leftovers], [[], []]);
      }
      await buildShown(host, [request]);
      assert.equal((await look(host)).layers.length, 1);
    },
  },
  {
    name: 'a missing blob is not-found and leaves nothing',
    needs: LAYERS,
    run: async (fixture) => {
      const request = first(await stack(fixture, BASE));
      const blob = { ...request.blob, file: `${fixture.workspace}/no-such-blob` };
      await rejects(fixture.host.unpackLayer({ ...request, blob }, context), 'not-found');
      assert.deepEqual((await look(fixture.host)).leftovers, []);
    },
  },
  {
    name: 'a missing or faulty parent is a failed precondition',
    needs: LAYERS,
    run: async (fixture) => {
      const { host } = fixture;
      const [base, upper] = await stack(fixture, BASE, UPPER);
      assert(base !== undefined && upper !== undefined);
      await rejects(host.unpackLayer(upper, context), 'failed-precondition');
      await host.unpackLayer(base, context);
      await rejects(host.unpackLayer(upper, context), 'failed-precondition');
      await host.commitLayer(base, context);
      await fixture.damageLayer(base);
      await rejects(host.unpackLayer(upper, context), 'failed-precondition');
      assert.deepEqual((await look(host)).leftovers, []);
    },
  },
  {
    name: 'an aborted signal stops every effect before it begins',
    needs: MOUNTS,
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await stack(fixture, BASE);
      const request = first(requests);
      const before = await fixture.fingerprint();
      const aborted: EffectContext = { signal: AbortSignal.abort() };
      await rejects(host.unpackLayer(request, aborted), 'cancelled');
      await rejects(host.commitLayer(request, aborted), 'cancelled');
      await rejects(host.removeLayer(request, aborted), 'cancelled');
      await rejects(host.removeMerge(request, aborted), 'cancelled');
      await rejects(host.mount(mountOf(fixture, requests), aborted), 'cancelled');
      await rejects(host.dismount(mountVolumeGuid('m'), aborted), 'cancelled');
      await rejects(host.cleanLeftovers(aborted), 'cancelled');
      await rejects(host.observe(aborted), 'cancelled');
      assert.equal(await fixture.fingerprint(), before);
    },
  },
  {
    name: 'unpacking reports its progress up to the whole, and committing that it has begun',
    needs: LAYERS,
    run: async (fixture) => {
      const request = first(await stack(fixture, BASE));
      const reports: Progress[] = [];
      await fixture.host.unpackLayer(request, { ...context, progress: (report) => reports.push(report) });
      assert(reports.length > 0);
      const unpacking = reports.filter(({ phase }) => phase === 'unpacking');
      const { size } = request.blob;
      assert.deepEqual(last(unpacking), { phase: 'unpacking', done: size, total: size });
      const committed: Progress[] = [];
      await fixture.host.commitLayer(request, { ...context, progress: (report) => committed.push(report) });
      assert.deepEqual(
        committed.map(({ phase }) => phase),
        ['committing'],
      );
    },
  },
  {
    name: 'remove refuses while a child needs the layer',
    needs: LAYERS,
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await stack(fixture, BASE, UPPER);
      await buildShown(host, requests);
      await rejects(host.removeLayer(first(requests), context), 'failed-precondition');
      await host.removeLayer(last(requests), context);
      await host.removeLayer(first(requests), context);
      const { layers, leftovers } = await look(host);
      assert.deepEqual([layers, leftovers], [[], []]);
    },
  },
  {
    name: 'remove refuses while a mount needs the layer',
    needs: MOUNTS,
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await stack(fixture, BASE);
      await buildShown(host, requests);
      const view = await host.mount(mountOf(fixture, requests), context);
      await rejects(host.removeLayer(first(requests), context), 'failed-precondition');
      await host.dismount(view.volumeGuid, context);
      await host.removeLayer(first(requests), context);
      assert.deepEqual((await look(host)).layers, []);
    },
  },
  {
    name: 'removing a layer that is missing, or only unpacked, is fine',
    needs: LAYERS,
    run: async (fixture) => {
      const { host } = fixture;
      const request = first(await stack(fixture, BASE));
      await host.removeLayer(request, context);
      await host.unpackLayer(request, context);
      await host.removeLayer(request, context);
      await host.removeLayer(request, context);
      assert.deepEqual((await look(host)).leftovers, []);
    },
  },
  {
    name: 'a damaged layer shows its fault and is built again in place, under its children',
    needs: LAYERS,
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await stack(fixture, BASE, UPPER);
      await buildShown(host, requests);
      const sound = await look(host);
      const base = first(requests);
      await fixture.damageLayer(base);
      const damaged = (await look(host)).layers.find(({ chainId }) => chainId === base.chainId);
      assert(damaged !== undefined && damaged.faults.length > 0);
      for (const { code, message } of damaged.faults) assert(code.length > 0 && message.length > 0);
      await rejects(host.commitLayer(base, context), 'failed-precondition');
      await buildShown(host, takenAlong(fixture, base, requests));
      const repaired = await look(host);
      assert.deepEqual(repaired.layers, sound.layers);
      assert.deepEqual(repaired.leftovers, []);
    },
  },
  {
    name: 'a lost snapshot makes its children faulty until it is built again',
    needs: LAYERS,
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await stack(fixture, BASE, UPPER);
      await buildShown(host, requests);
      const sound = await look(host);
      await fixture.loseSnapshot(first(requests));
      const lost = await look(host);
      assert.deepEqual(
        lost.layers.map(({ chainId, faults }) => [chainId, faults.map(({ code }) => code)]),
        [[last(requests).chainId, ['parent-missing', ...(areBound(fixture) ? ['parent-rebuilt'] : [])]]],
      );
      await host.cleanLeftovers(context);
      await buildShown(host, takenAlong(fixture, first(requests), requests));
      assert.deepEqual((await look(host)).layers, sound.layers);
      assert.deepEqual((await look(host)).leftovers, []);
    },
  },
  ...(['ForkedCIM', 'BlockCIM', 'WCIFS'] as const).map(
    (format): ConformanceCase => ({
      name: `an exported layer is its own diff, and gives the same files when it is imported (${format})`,
      needs: [
        'export',
        `${format}.write`,
        `${format}.mount`,
        ...(format === 'BlockCIM' ? (['merge'] as const) : []),
      ],
      run: async (fixture) => {
        const { host } = fixture;
        const file = `${fixture.files}/layer.tar`;
        const requests = (await stack(fixture, BASE, UPPER)).map((request) => ({ ...request, format }));
        const [base, upper] = requests;
        assert(base !== undefined && upper !== undefined);
        await rejects(host.exportLayer(base, file, context), 'failed-precondition');
        await build(host, requests);
        const before = await fixture.fingerprint();
        await host.exportLayer(upper, file, context);
        await host.exportLayer(upper, file, context);
        assert.equal(await fixture.fingerprint(), before);

        const tar = await readFile(file);
        const digest = `sha256:${createHash('sha256').update(tar).digest('hex')}`;
        const mediaType = 'application/vnd.oci.image.layer.v1.tar';
        const blob = { file, offset: 0, size: tar.length, digest: digest as Digest, mediaType };
        const diffId = digest as DiffId;
        const chainId = chainIds([base.diffId, diffId])[1] as ChainId;
        const again: UnpackRequest = { chainId, diffId, parents: [base.chainId], format, blob };
        await build(host, [again]);
        if (format === 'BlockCIM') await host.mergeChain({ chain: [base.chainId, chainId], format }, context);
        const request = mountOf(fixture, [base, again]);
        await host.mount(request, context);
        const names = ['a.txt', 'dir/b.txt', 'dir/c.txt', 'new/d.txt'];
        const texts = await Promise.all(names.map((name) => fixture.readFile(`${request.path}/${name}`)));
        assert.deepEqual(texts, ['A', undefined, 'c'.repeat(10_000), 'd']);
        await host.dismount(request.volumeGuid, context);

        const second = `${fixture.files}/again.tar`;
        await host.exportLayer(again, second, context);
        if (fixture.keepsNotAllTimes !== true) assert(tar.equals(await readFile(second)));
        await rejects(host.exportLayer(base, file, { signal: AbortSignal.abort() }), 'cancelled');
        await rejects(host.exportLayer(base, `${fixture.files}/none/x.tar`, context), 'not-found');
        await fixture.damageLayer(base);
        await rejects(host.exportLayer(base, file, context), 'failed-precondition');
        assert.deepEqual((await readdir(fixture.files)).filter((name) => name.endsWith('.tar')).length, 2);
      },
    }),
  ),
  ...(['Kernel', 'Extracted'] as const).map(
    (view): ConformanceCase => ({
      name: `shows a chain, base first, as one tree (${view})`,
      needs: ['ForkedCIM.write', 'ForkedCIM.mount', `view.${view}`],
      run: async (fixture) => {
        const { host, workspace } = fixture;
        const requests = await stack(fixture, BASE, UPPER);
        await buildShown(host, requests);
        const request = { ...mountOf(fixture, requests), path: `${workspace}/made/for/m`, view };
        const shown = await host.mount(request, context);
        const { volumeGuid, path } = request;
        const expected = {
          volumeGuid,
          path,
          chainId: last(requests).chainId,
          format: request.format,
          view,
          access: 'ReadOnly',
        };
        assert.deepEqual(shown, expected);
        const contents = await Promise.all(
          ['a.txt', 'dir/b.txt', 'dir/c.txt', 'new/d.txt'].map((name) => fixture.readFile(`${path}/${name}`)),
        );
        assert.deepEqual(contents, ['A', undefined, 'c'.repeat(10_000), 'd']);
        const state = await look(host, [path]);
        const { hcsStorage: _storage, ...observed } = first(state.mounts);
        assert.deepEqual(observed, { ...expected, state: 'mounted' });
        assert.equal(state.paths[path]?.kind, 'own-mount');
        assert.deepEqual(state.leftovers, []);

        assert.deepEqual(await host.mount(request, context), expected);
        assert.deepEqual((await look(host)).mounts, state.mounts);

        await host.dismount(volumeGuid, context);
        await host.dismount(volumeGuid, context);
        const after = await look(host, [path, `${workspace}/made`]);
        assert.deepEqual([after.mounts, after.leftovers], [[], []]);
        assert.deepEqual(
          [path, `${workspace}/made`].map((gone) => after.paths[gone]?.kind),
          ['absent', 'absent'],
        );
      },
    }),
  ),
  {
    name: 'one chain is shown at two places, and two chains share their base',
    needs: MOUNTS,
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await stack(fixture, BASE, UPPER);
      await buildShown(host, requests);
      const views = [
        mountOf(fixture, requests, 'one'),
        mountOf(fixture, requests, 'two'),
        mountOf(fixture, requests.slice(0, 1), 'base'),
      ];
      await Promise.all(views.map((view) => host.mount(view, context)));
      const texts = await Promise.all(views.map(({ path }) => fixture.readFile(`${path}/a.txt`)));
      assert.deepEqual(texts, ['A', 'A', 'a']);
      for (const { volumeGuid } of views) await host.dismount(volumeGuid, context);
      assert.deepEqual((await look(host)).mounts, []);
    },
  },
  {
    name: 'who looks at a part sees of it what who looks at everything sees, and nothing else',
    needs: MOUNTS,
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await stack(fixture, BASE, UPPER);
      await buildShown(host, requests);
      const views = [mountOf(fixture, requests, 'one'), mountOf(fixture, requests, 'two')];
      for (const view of views) await host.mount(view, context);
      const whole = await look(host);
      const [layers, mounts] = [[first(requests).chainId], [first(views).volumeGuid]];
      const part = await host.observe({ ...context, focus: { layers, mounts, snapshots: ['none'] } });
      assert.deepEqual(
        part.layers,
        whole.layers.filter(({ chainId }) => layers.includes(chainId)),
      );
      assert.deepEqual(
        part.mounts,
        whole.mounts.filter(({ volumeGuid }) => mounts.includes(volumeGuid)),
      );
      assert.deepEqual([part.layers.length, part.mounts.length], [1, 1]);
      assert.deepEqual([part.merges, part.snapshots, part.leftovers], [[], [], []]);
      assert.deepEqual(part.capabilities, whole.capabilities);
      for (const { volumeGuid } of views) await host.dismount(volumeGuid, context);
    },
  },
  {
    name: 'dismount leaves an empty directory that was there before',
    needs: MOUNTS,
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await stack(fixture, BASE);
      await buildShown(host, requests);
      for (const view of ['Kernel', 'Extracted'] as const) {
        if (!(await host.capabilities())[`view.${view}`].available) continue;
        const request = { ...mountOf(fixture, requests, `kept-${view}`), view };
        await fixture.makeDirectory(request.path);
        await host.mount(request, context);
        assert.equal(await fixture.readFile(`${request.path}/a.txt`), 'a');
        await host.dismount(request.volumeGuid, context);
        assert.equal((await look(host, [request.path])).paths[request.path]?.kind, 'empty-directory');
      }
    },
  },
  {
    name: 'something foreign at the path is reported and not touched',
    needs: MOUNTS,
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await stack(fixture, BASE);
      await buildShown(host, requests);
      const atFile = mountOf(fixture, requests, 'file');
      await fixture.makeFile(atFile.path);
      const atFull = mountOf(fixture, requests, 'full');
      await fixture.makeDirectory(atFull.path);
      await fixture.makeFile(`${atFull.path}/kept`);
      for (const request of [atFile, atFull]) {
        await rejects(host.mount(request, context), 'already-exists');
        await host.dismount(request.volumeGuid, context);
      }
      assert.notEqual(await fixture.readFile(atFile.path), undefined);
      assert.notEqual(await fixture.readFile(`${atFull.path}/kept`), undefined);
      assert.deepEqual((await look(host)).mounts, []);
    },
  },
  {
    name: 'two mounts cannot have one path, nor one mount two',
    needs: MOUNTS,
    run: async (fixture) => {
      const { host, workspace } = fixture;
      const requests = await stack(fixture, BASE);
      await buildShown(host, requests);
      const request = mountOf(fixture, requests);
      await host.mount(request, context);
      const second = { ...request, volumeGuid: mountVolumeGuid('second') };
      await rejects(host.mount(second, context), 'already-exists');
      const moved = { ...request, path: `${workspace}/elsewhere` };
      await rejects(host.mount(moved, context), 'failed-precondition');
      assert.equal((await look(host)).mounts.length, 1);
      await host.dismount(request.volumeGuid, context);
    },
  },
  {
    name: 'mount refuses layers that are not committed and bad paths',
    needs: MOUNTS,
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await stack(fixture, BASE);
      const request = mountOf(fixture, requests);
      await rejects(host.mount(request, context), 'failed-precondition');
      await buildShown(host, requests);
      for (const path of ['relative/path', host.root, `${host.root}/inside`, '/'])
        await rejects(host.mount({ ...request, path }, context), 'invalid-manifest');
      assert.deepEqual((await look(host)).mounts, []);
      if ((await host.capabilities()).active.available) return;
      await rejects(host.mount({ ...request, access: 'ReadWrite' }, context), 'unsupported-host');
    },
  },
  {
    name: 'a mount outlives its host, and the next one can end it',
    needs: MOUNTS,
    run: async (fixture) => {
      const requests = await stack(fixture, BASE);
      await buildShown(fixture.host, requests);
      const request = mountOf(fixture, requests);
      await fixture.host.mount(request, context);
      const next = await fixture.reopen();
      assert.equal(first((await look(next)).mounts).state, 'mounted');
      assert.deepEqual((await look(next)).leftovers, []);
      await next.dismount(request.volumeGuid, context);
      assert.deepEqual((await look(next)).mounts, []);
    },
  },
  ...(['Kernel', 'Extracted'] as const).map(
    (view): ConformanceCase => ({
      name: `a mount taken away by hand is missing, and is mounted again or forgotten (${view})`,
      needs: ['ForkedCIM.write', 'ForkedCIM.mount', `view.${view}`],
      run: async (fixture) => {
        const { host } = fixture;
        const requests = await stack(fixture, BASE);
        await buildShown(host, requests);
        const request = { ...mountOf(fixture, requests), view };
        await fixture.unmountByHand(await host.mount(request, context));
        const missing = first((await look(host)).mounts);
        assert.equal(missing.state, 'missing');
        await fixture.unmountByHand(await host.mount(request, context));
        await host.dismount(request.volumeGuid, context);
        const state = await look(host, [request.path]);
        assert.deepEqual([state.mounts, state.leftovers], [[], []]);
        assert.equal(state.paths[request.path]?.kind, 'absent');
      },
    }),
  ),
  {
    name: 'what covers a mount is never touched',
    needs: [...MOUNTS, 'view.Kernel'],
    run: async (fixture) => {
      if (fixture.coverByHand === undefined) return;
      const { host } = fixture;
      const requests = await stack(fixture, BASE);
      await buildShown(host, requests);
      const request: MountRequest = { ...mountOf(fixture, requests), view: 'Kernel' };
      const uncover = await fixture.coverByHand(await host.mount(request, context));
      const state = await look(host, [request.path]);
      assert.equal(first(state.mounts).state, 'covered');
      assert.equal(state.paths[request.path]?.kind, 'foreign-mount');
      await rejects(host.mount(request, context), 'already-exists');
      await rejects(host.dismount(request.volumeGuid, context), 'busy');
      await uncover();
      assert.equal(first((await look(host)).mounts).state, 'mounted');
      assert.equal(await fixture.readFile(`${request.path}/a.txt`), 'a');
      await host.dismount(request.volumeGuid, context);
    },
  },
];

/** The cases about any format, with block CIMs. */
export const hostCasesOfBlocks: readonly ConformanceCase[] = casesWith('BlockCIM', [
  'BlockCIM.write',
  'BlockCIM.mount',
  'merge',
]);

/** The same with Windows' own layers. */
export const hostCasesOfWcifs: readonly ConformanceCase[] = casesWith('WCIFS', [
  'WCIFS.write',
  'WCIFS.mount',
]);

function casesWith(format: 'BlockCIM' | 'WCIFS', capabilities: readonly Capability[]): ConformanceCase[] {
  return hostCases
    .filter(({ needs }) => needs.includes('ForkedCIM.write') && !needs.includes('export'))
    .map(({ name, needs, run }) => ({
      name: `${name} (${format})`,
      needs: [...capabilities, ...needs.filter((need) => !need.startsWith('Forked'))],
      run: (fixture) => run({ ...fixture, format }),
    }));
}
