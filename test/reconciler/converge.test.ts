/** Whatever is declared, and whatever happens to the host: applying until nothing fails leaves nothing to do. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CimletError } from '../../src/errors.ts';
import type { ChainId } from '../../src/hosts/host.ts';
import { BLOCK_CAPABILITIES } from '../../src/hosts/memory/memory-host.ts';
import type { Resource } from '../../src/manifests/resources.ts';
import { chain, expectEmpty, expectValidRecords, image, mount, openWorld, type World } from './support.ts';

const NAMES = ['one', 'two', 'three'];
const name = fc.constantFrom(...NAMES);

interface Wish {
  layers: Record<string, string>;
  chains: { name: string; verified: boolean; vhdFooter: boolean }[];
  mounts: { name: string; of: string; direct: boolean; path: string; extracted: boolean }[];
}

const wish: fc.Arbitrary<Wish> = fc.record({
  layers: fc.record(
    Object.fromEntries(NAMES.map((of) => [of, fc.constantFrom('a', 'ab', 'abc', 'ac', 'xy')])),
  ),
  chains: fc.uniqueArray(fc.record({ name, verified: fc.boolean(), vhdFooter: fc.boolean() }), {
    selector: (entry) => entry.name,
  }),
  mounts: fc.uniqueArray(
    fc.record({
      name,
      of: name,
      direct: fc.boolean(),
      path: fc.constantFrom('/mnt/a', '/mnt/b', '/mnt/c', '/mnt/a/sub'),
      extracted: fc.boolean(),
    }),
    { selector: (entry) => entry.name },
  ),
});

const METHODS = [
  'unpackLayer',
  'commitLayer',
  'mergeChain',
  'mount',
  'dismount',
  'removeLayer',
  'removeMerge',
] as const;

const DRIFTS = ['unmount', 'damage', 'drop', 'damage-merge', 'drop-merge', 'fail', 'kill'] as const;
type Drift = { kind: (typeof DRIFTS)[number]; at: number };
const drift: fc.Arbitrary<Drift> = fc.record({
  kind: fc.constantFrom(...DRIFTS),
  at: fc.nat(29),
});

function resourcesOf({ chains, mounts }: Wish, block: boolean): Resource[] {
  const images = NAMES.map((of) => image(of));
  const views = mounts.map(({ name: own, of, direct, path, extracted }) =>
    mount(own, {
      path,
      ...(direct || !chains.some((entry) => entry.name === of) ? { image: of } : { chain: of }),
      ...(extracted ? { view: 'Extracted' } : {}),
    }),
  );
  const stacks = chains.map(({ name: own, verified, vhdFooter }) =>
    chain(own, [own], block ? { integrity: verified ? 'Verified' : 'None', vhdFooter } : {}),
  );
  return [...images, ...stacks, ...views];
}

async function disturb(world: World, { kind, at }: Drift): Promise<void> {
  const { layers, merges, mounts } = await world.host.observe({ signal: new AbortController().signal });
  const layer = layers[at % Math.max(1, layers.length)];
  const view = mounts[at % Math.max(1, mounts.length)];
  const merge = merges[at % Math.max(1, merges.length)];
  if (merge !== undefined) {
    const top = { chainId: merge.chain.at(-1) as ChainId, format: merge.format };
    if (kind === 'drop-merge') world.host.dropMerge(top);
    if (kind === 'damage-merge') world.host.damageMerge(top, { code: 'file-corrupt', message: 'flipped' });
  }
  if (kind === 'unmount' && view !== undefined) world.host.dropMount(view.volumeGuid);
  if (kind === 'drop' && layer !== undefined) world.host.dropLayer(layer);
  if (kind === 'damage' && layer !== undefined) {
    world.host.damageLayer(layer, { code: 'file-missing', message: 'gone' });
  }
  if (kind === 'fail') {
    const method = METHODS[at % METHODS.length]!;
    world.host.failNext(method, new CimletError('access-denied', `${method}: no`), {
      stage: at % 2 === 0 ? 'before' : 'after',
    });
  }
  if (kind === 'kill')
    world.killAt(METHODS[at % METHODS.length]!, at % 2 === 0 ? 'before' : 'after', 1 + (at % 3));
}

/** Nothing is faulty, and no chain is sealed in part. */
async function expectWhole(world: World): Promise<void> {
  const { layers, merges, leftovers } = await world.host.observe({ signal: new AbortController().signal });
  expect([...layers.flatMap(({ faults }) => faults), ...merges.flatMap(({ faults }) => faults)]).toEqual([]);
  expect(leftovers).toEqual([]);
  const sealed = new Map(layers.map(({ chainId, rootHash }) => [chainId, rootHash !== undefined]));
  for (const { chain: ids, rootHash } of merges)
    for (const chainId of ids) expect(sealed.get(chainId)).toBe(rootHash !== undefined);
}

/** What is recorded is what the host shows. */
async function expectNoDrift(world: World): Promise<void> {
  const { resources } = await world.engine.status(new AbortController().signal);
  expect(resources.flatMap(({ drift: found }) => found)).toEqual([]);
}

describe('convergence', () => {
  it('records a new view of a Mount that was made when the process died', async () => {
    const world = openWorld();
    try {
      const resources = [image('app'), chain('app'), mount('app')];
      world.images.set('app', 'a');
      await world.apply(resources);
      world.images.set('app', 'b');
      world.killAt('mount', 'after', 1);
      await Promise.allSettled([world.apply(resources)]);
      expect(world.isDead).toBe(true);
      world.restart();
      await world.apply(resources);
      expectEmpty(await world.plan(resources));
      await expectNoDrift(world);
    } finally {
      world.close();
    }
  });

  it.each([
    ['forked', false],
    ['block', true],
  ])('reaches an empty plan from any wish after any drift: %s CIMs', async (_name, block) => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(wish, fc.array(drift, { maxLength: 4 })), { minLength: 1, maxLength: 4 }),
        async (steps) => {
          const world = openWorld(block ? { capabilities: BLOCK_CAPABILITIES } : {});
          try {
            for (const [desired, drifts] of steps) {
              for (const [of, layers] of Object.entries(desired.layers)) world.images.set(of, layers);
              const resources = resourcesOf(desired, block);
              for (const entry of drifts) await disturb(world, entry);
              for (let attempt = 0; attempt < 8; attempt++) {
                const [run] = await Promise.allSettled([world.apply(resources)]);
                if (world.isDead) world.restart();
                else if (run.status === 'fulfilled' && run.value.failed.length === 0) break;
              }
              world.restart();
              // A path may have been freed only by the last run: then one more is needed to take it.
              expect((await world.apply(resources)).failed).toEqual([]);
              const plan = await world.plan(resources);
              expectEmpty(plan);
              expectValidRecords(world.state);
              // What only a blocked resource uses stays as it is.
              if (plan.blocked.length > 0) continue;
              await expectWhole(world);
              await expectNoDrift(world);
            }
          } finally {
            world.close();
          }
        },
      ),
      { numRuns: 60 },
    );
  });
});
