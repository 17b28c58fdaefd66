/** What every host that writes block CIMs must do: layers of their own, merged, sealed, shown. Part of the suite in host.ts. */

import assert from 'node:assert/strict';
import {
  type Capability,
  MAX_MERGED_LAYERS,
  type MergeRequest,
  type UnpackRequest,
} from '../../src/hosts/host.ts';
import {
  BASE,
  build,
  type ConformanceCase,
  context,
  first,
  type HostFixture,
  type LayerFiles,
  last,
  look,
  mountOf,
  otherDigest,
  rejects,
  stack,
  UPPER,
} from './host.ts';

const LAYERS: readonly Capability[] = ['BlockCIM.write'];
const MERGES: readonly Capability[] = ['BlockCIM.write', 'merge'];
const SEALS: readonly Capability[] = [...MERGES, 'seal'];
const MOUNTS: readonly Capability[] = [...MERGES, 'BlockCIM.mount'];

const TOP: LayerFiles = { 'dir/b.txt': 'b again', 'new/d.txt': null, 'top.txt': 't' };

async function blockStack(
  fixture: HostFixture,
  layers: readonly LayerFiles[],
  change: Partial<UnpackRequest> = {},
): Promise<UnpackRequest[]> {
  const requests = await stack(fixture, ...layers);
  return requests.map((request) => ({ ...request, format: 'BlockCIM', ...change }));
}

function mergeOf(requests: readonly UnpackRequest[], change: Partial<MergeRequest> = {}): MergeRequest {
  return { chain: requests.map(({ chainId }) => chainId), format: 'BlockCIM', ...change };
}

export const blockCases: readonly ConformanceCase[] = [
  {
    name: 'a chain has a forked and a block form at the same time',
    needs: ['ForkedCIM.write', 'BlockCIM.write'],
    run: async (fixture) => {
      const { host } = fixture;
      const forked = await stack(fixture, BASE, UPPER);
      const block = await blockStack(fixture, [BASE, UPPER]);
      await build(host, [...forked, ...block]);
      const shown = (await look(host)).layers.map(({ format, chainId }) => `${format} ${chainId}`);
      assert.deepEqual(
        shown.sort(),
        [...forked, ...block].map(({ format, chainId }) => `${format} ${chainId}`).sort(),
      );
      await host.removeLayer(last(forked), context);
      await host.removeLayer(first(forked), context);
      const { layers, leftovers } = await look(host);
      assert.deepEqual(
        layers.map(({ format }) => format),
        ['BlockCIM', 'BlockCIM'],
      );
      assert.deepEqual(leftovers, []);
    },
  },
  {
    name: 'a block layer is committed like any other, and needs its parents',
    needs: LAYERS,
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await blockStack(fixture, [BASE, UPPER]);
      await rejects(host.unpackLayer(last(requests), context), 'failed-precondition');
      await host.unpackLayer(first(requests), context);
      assert.deepEqual((await look(host)).layers, []);
      await build(host, requests);
      const { layers, leftovers } = await look(host);
      assert.deepEqual(leftovers, []);
      assert.deepEqual(
        layers.map(({ format, rootHash, vhdFooter, faults }) => [format, rootHash, vhdFooter, faults]),
        [0, 1].map(() => ['BlockCIM', undefined, undefined, []]),
      );
      await rejects(host.removeLayer(first(requests), context), 'failed-precondition');
    },
  },
  ...(['Kernel', 'Extracted'] as const).map(
    (view): ConformanceCase => ({
      name: `shows a merged chain, base first, as one tree (${view})`,
      needs: [...MOUNTS, `view.${view}`],
      run: async (fixture) => {
        const { host } = fixture;
        const requests = await blockStack(fixture, [BASE, UPPER, TOP]);
        await build(host, requests);
        await host.mergeChain(mergeOf(requests), context);
        const request = { ...mountOf(fixture, requests), view };
        const shown = await host.mount(request, context);
        assert.deepEqual(
          [shown.format, shown.chainId, shown.rootHash],
          ['BlockCIM', last(requests).chainId, undefined],
        );
        const names = ['a.txt', 'dir/b.txt', 'dir/c.txt', 'new/d.txt', 'top.txt'];
        assert.deepEqual(
          await Promise.all(names.map((name) => fixture.readFile(`${request.path}/${name}`))),
          ['A', 'b again', 'c'.repeat(10_000), undefined, 't'],
        );
        assert.deepEqual(await host.mount(request, context), shown);
        await rejects(host.removeMerge(last(requests), context), 'failed-precondition');
        await host.dismount(request.volumeGuid, context);
        await host.removeMerge(last(requests), context);
        await host.removeMerge(last(requests), context);
        assert.deepEqual((await look(host)).merges, []);
        assert.deepEqual((await look(host)).leftovers, []);
      },
    }),
  ),
  {
    name: 'a single block layer is shown without merging; several are not',
    needs: MOUNTS,
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await blockStack(fixture, [BASE, UPPER]);
      await build(host, requests);
      const single = mountOf(fixture, requests.slice(0, 1), 'single');
      await host.mount(single, context);
      assert.equal(await fixture.readFile(`${single.path}/a.txt`), 'a');
      await rejects(host.mount(mountOf(fixture, requests), context), 'failed-precondition', /merged/);
      await host.dismount(single.volumeGuid, context);
    },
  },
  {
    name: 'a mount of a layer alone needs no merged CIM on it',
    needs: MOUNTS,
    run: async (fixture) => {
      const { host } = fixture;
      const other = await blockStack(fixture, [{ 'other.txt': 'o' }]);
      const alone = await blockStack(fixture, [BASE]);
      await build(host, [...other, ...alone]);
      await host.mergeChain(mergeOf([...other, ...alone]), context);
      const view = mountOf(fixture, alone, 'alone');
      await host.mount(view, context);
      await host.removeMerge(last(alone), context);
      assert.deepEqual((await look(host)).merges, []);
      assert.equal(await fixture.readFile(`${view.path}/a.txt`), 'a');
      await host.dismount(view.volumeGuid, context);
    },
  },
  {
    name: 'block layers are not shown as a chain that they were not built as',
    needs: MOUNTS,
    run: async (fixture) => {
      const { host } = fixture;
      const other = await blockStack(fixture, [{ 'other.txt': 'o' }]);
      const requests = await blockStack(fixture, [BASE, UPPER]);
      await build(host, [...other, ...requests]);
      const misfits = [requests.slice(1), [...other, ...requests.slice(0, 1)]];
      await host.mergeChain(mergeOf(last(misfits)), context);
      for (const misfit of misfits)
        await rejects(host.mount(mountOf(fixture, misfit), context), 'failed-precondition', /not built on/);
      assert.deepEqual((await look(host)).mounts, []);
    },
  },
  {
    name: 'a merged chain is shown in its own order, count and format only',
    needs: MOUNTS,
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await blockStack(fixture, [BASE, UPPER, TOP]);
      const [base, middle, top] = requests;
      assert(base !== undefined && middle !== undefined && top !== undefined);
      await build(host, requests);
      await host.mergeChain(mergeOf(requests), context);
      const wrong = [
        [top, middle, base],
        [middle, base, top],
        [base, top],
        [...requests, top],
      ];
      for (const chain of wrong)
        await rejects(host.mount(mountOf(fixture, chain), context), 'failed-precondition');
      const forked = requests.map((request): UnpackRequest => ({ ...request, format: 'ForkedCIM' }));
      await rejects(host.mount(mountOf(fixture, forked), context), 'failed-precondition');
      const { mounts, leftovers } = await look(host);
      assert.deepEqual([mounts, leftovers], [[], []]);
      const view = mountOf(fixture, requests);
      await host.mount(view, context);
      await host.dismount(view.volumeGuid, context);
    },
  },
  {
    name: 'a merged chain is not shown once a layer of it is another, until it is merged again',
    needs: [...MOUNTS, 'seal'],
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await blockStack(fixture, [BASE, UPPER]);
      await build(host, requests);
      await host.mergeChain(mergeOf(requests), context);
      const sealed = requests.map((request) => ({ ...request, seal: true }));
      await build(host, sealed.slice(0, 1));
      const view = mountOf(fixture, requests);
      await rejects(host.mount(view, context), 'failed-precondition');
      const [merge] = (await look(host)).merges;
      assert.deepEqual(
        merge?.faults.map(({ code }) => code),
        ['source-changed'],
      );
      await rejects(host.mergeChain(mergeOf(requests), context), 'failed-precondition', /1 of its 2 layers/);
      await build(host, sealed);
      await host.mergeChain(mergeOf(sealed), context);
      await host.mount(view, context);
      assert.equal(await fixture.readFile(`${view.path}/a.txt`), 'A');
      await host.dismount(view.volumeGuid, context);
    },
  },
  {
    name: 'merging is observed, and repeating it changes nothing',
    needs: MERGES,
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await blockStack(fixture, [BASE, UPPER, TOP]);
      await build(host, requests);
      const merged = await host.mergeChain(mergeOf(requests), context);
      const lower = await host.mergeChain(mergeOf(requests.slice(0, 2)), context);
      assert.deepEqual(
        merged.chain,
        requests.map(({ chainId }) => chainId),
      );
      assert(merged.bytes > 0 && merged.builder !== '');
      const { merges, leftovers } = await look(host);
      assert.deepEqual(leftovers, []);
      assert.deepEqual(
        merges.toSorted((a, b) => a.chain.length - b.chain.length),
        [lower, merged].map((each) => ({ ...each, faults: [] })),
      );
      const before = await fixture.fingerprint();
      assert.deepEqual(await host.mergeChain(mergeOf(requests), context), merged);
      assert.deepEqual(await (await fixture.reopen()).mergeChain(mergeOf(requests), context), merged);
      assert.equal(await fixture.fingerprint(), before);
    },
  },
  {
    name: 'merging refuses what cannot be merged and leaves nothing',
    needs: MERGES,
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await blockStack(fixture, [BASE, UPPER]);
      await rejects(host.mergeChain(mergeOf(requests), context), 'failed-precondition');
      await build(host, requests);
      await rejects(host.mergeChain(mergeOf(requests.slice(0, 1)), context), 'invalid-manifest');
      await rejects(host.mergeChain(mergeOf(requests, { format: 'ForkedCIM' }), context), 'invalid-manifest');
      const tooMany = Array.from({ length: MAX_MERGED_LAYERS + 1 }, () => first(requests).chainId);
      await rejects(host.mergeChain(mergeOf([], { chain: tooMany }), context), 'invalid-manifest', /at most/);
      await rejects(host.mergeChain(mergeOf(requests), { signal: AbortSignal.abort() }), 'cancelled');
      await fixture.damageLayer(first(requests));
      await rejects(host.mergeChain(mergeOf(requests), context), 'failed-precondition');
      assert.deepEqual([(await look(host)).merges, (await look(host)).leftovers], [[], []]);
    },
  },
  {
    name: 'a removed top layer takes its merged CIM with it',
    needs: MERGES,
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await blockStack(fixture, [BASE, UPPER]);
      await build(host, requests);
      await host.mergeChain(mergeOf(requests), context);
      await host.removeLayer(last(requests), context);
      assert.deepEqual((await look(host)).merges, []);
      await host.removeLayer(first(requests), context);
      assert.deepEqual([(await look(host)).layers, (await look(host)).leftovers], [[], []]);
    },
  },
  {
    name: 'a merged CIM misses a damaged layer until that is built again as it was',
    needs: MERGES,
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await blockStack(fixture, [BASE, UPPER]);
      await build(host, requests);
      await host.mergeChain(mergeOf(requests), context);
      const sound = await look(host);
      await fixture.damageLayer(first(requests));
      const [merge] = (await look(host)).merges;
      assert.deepEqual(
        merge?.faults.map(({ code }) => code),
        ['source-missing'],
      );
      await build(host, [first(requests)]);
      assert.deepEqual((await look(host)).merges, sound.merges);
      assert.deepEqual((await look(host)).layers, sound.layers);
    },
  },
  {
    name: 'a damaged merged CIM shows its fault, is not mounted, and is merged again in place',
    needs: MOUNTS,
    run: async (fixture) => {
      if (fixture.damageMerge === undefined) return;
      const { host } = fixture;
      const requests = await blockStack(fixture, [BASE, UPPER]);
      await build(host, requests);
      await host.mergeChain(mergeOf(requests), context);
      const sound = (await look(host)).merges;
      await fixture.damageMerge(last(requests));
      const faults = (await look(host)).merges[0]?.faults ?? [];
      assert(faults.length > 0);
      for (const { code, message } of faults) assert(code.length > 0 && message.length > 0);
      await rejects(host.mount(mountOf(fixture, requests), context), 'failed-precondition');
      await host.mergeChain(mergeOf(requests), context);
      assert.deepEqual((await look(host)).merges, sound);
      await host.mount(mountOf(fixture, requests), context);
      await host.dismount(mountOf(fixture, requests).volumeGuid, context);
    },
  },
  {
    name: 'sealing gives the same layer the same root hash everywhere, another another',
    needs: SEALS,
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await blockStack(fixture, [BASE, UPPER], { seal: true });
      const hashes: (string | undefined)[] = [];
      for (let round = 0; round < 2; round++) {
        await build(host, requests);
        const merged = await host.mergeChain(mergeOf(requests, { seal: true }), context);
        const observed = await look(host);
        assert.deepEqual(observed.merges, [{ ...merged, faults: [] }]);
        hashes.push(...observed.layers.map(({ rootHash }) => rootHash), merged.rootHash);
        for (const request of [...requests].reverse()) await host.removeLayer(request, context);
      }
      for (const hash of hashes) assert.match(hash ?? '', /^sha256:[0-9a-f]{64}$/);
      assert.deepEqual(hashes.slice(0, 3), hashes.slice(3));
      assert.equal(new Set(hashes).size, 3);
    },
  },
  {
    name: 'an unsealed layer is built anew when the seal is asked for, and a sealed one stays',
    needs: SEALS,
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await blockStack(fixture, [BASE, UPPER]);
      const sealed = requests.map((request) => ({ ...request, seal: true }));
      await build(host, requests);
      await host.mergeChain(mergeOf(requests), context);
      await rejects(host.mergeChain(mergeOf(requests, { seal: true }), context), 'failed-precondition');
      await build(host, sealed.slice(0, 1));
      assert.deepEqual(
        (await look(host)).merges[0]?.faults.map(({ code }) => code),
        ['source-changed'],
      );
      await rejects(host.mergeChain(mergeOf(requests), context), 'failed-precondition', /sealed/);
      await build(host, sealed);
      const merged = await host.mergeChain(mergeOf(requests, { seal: true }), context);
      assert.notEqual(merged.rootHash, undefined);
      const before = await fixture.fingerprint();
      await build(host, requests);
      assert.deepEqual(await host.mergeChain(mergeOf(requests), context), merged);
      assert.equal(await fixture.fingerprint(), before);
      assert.deepEqual((await look(host)).leftovers, []);
    },
  },
  {
    name: 'a footer is added when it is asked for, and stays',
    needs: MERGES,
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await blockStack(fixture, [BASE, UPPER]);
      await build(host, requests);
      const footed = requests.map((request) => ({ ...request, vhdFooter: true }));
      await build(host, footed);
      await host.mergeChain(mergeOf(requests, { vhdFooter: true }), context);
      await build(host, requests);
      await host.mergeChain(mergeOf(requests), context);
      const { layers, merges, leftovers } = await look(host);
      assert.deepEqual(
        [...layers, ...merges].map(({ vhdFooter, faults }) => [vhdFooter, faults]),
        [
          [true, []],
          [true, []],
          [true, []],
        ],
      );
      assert.deepEqual(leftovers, []);
    },
  },
  {
    name: 'a mount expects a root hash and gets it, or is refused naming both',
    needs: [...SEALS, 'BlockCIM.mount'],
    run: async (fixture) => {
      const { host } = fixture;
      const requests = await blockStack(fixture, [BASE, UPPER], { seal: true });
      await build(host, requests);
      const { rootHash } = await host.mergeChain(mergeOf(requests, { seal: true }), context);
      const single = (await look(host)).layers.find(({ chainId }) => chainId === first(requests).chainId);
      const wrong = otherDigest('another chain');
      const views: [string, UnpackRequest[], string | undefined][] = [
        ['merged', requests, rootHash],
        ['single', requests.slice(0, 1), single?.rootHash],
      ];
      for (const [name, chain, expectedRootHash] of views) {
        const request = mountOf(fixture, chain, name);
        const refused = host.mount({ ...request, expectedRootHash: wrong }, context);
        await rejects(
          refused,
          'corrupt',
          new RegExp(`${expectedRootHash}.*${wrong}|${wrong}.*${expectedRootHash}`),
        );
        assert.deepEqual((await look(host, [request.path])).paths[request.path]?.kind, 'absent');
        const shown = await host.mount({ ...request, expectedRootHash }, context);
        assert.equal(shown.rootHash, expectedRootHash);
        const { state: _state, hcsStorage: _storage, ...observed } = first((await look(host)).mounts);
        assert.deepEqual(observed, shown);
        await host.dismount(request.volumeGuid, context);
      }
      const plain = await blockStack(fixture, [{ 'plain.txt': 'p' }]);
      await build(host, plain);
      const early = mountOf(fixture, plain, 'early');
      await host.mount(early, context);
      await build(host, [{ ...first(plain), seal: true }]);
      const { layers, mounts } = await look(host);
      const late = layers.find(({ chainId }) => chainId === first(plain).chainId)?.rootHash;
      const again = { ...early, expectedRootHash: late };
      // A host that shows what was built anew under its mounts shows it sealed already.
      if (mounts[0]?.rootHash !== late) await rejects(host.mount(again, context), 'failed-precondition');
      await rejects(host.mount({ ...early, expectedRootHash: wrong }, context), 'corrupt');
      await host.dismount(early.volumeGuid, context);
      assert.equal((await host.mount(again, context)).rootHash, late);
      await host.dismount(early.volumeGuid, context);
      const unsealed = await blockStack(fixture, [{ 'unsealed.txt': 'u' }]);
      await build(host, unsealed);
      const request = { ...mountOf(fixture, unsealed, 'unsealed'), expectedRootHash: wrong };
      await rejects(host.mount(request, context), 'corrupt');
    },
  },
];
