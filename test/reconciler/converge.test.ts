/** Whatever is declared, and whatever happens to the host: applying until nothing fails leaves nothing to do. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CimletError } from '../../src/errors.ts';
import type { Resource } from '../../src/manifests/resources.ts';
import { chain, expectEmpty, expectValidRecords, image, mount, openWorld, type World } from './support.ts';

const NAMES = ['one', 'two', 'three'];
const name = fc.constantFrom(...NAMES);

interface Wish {
  layers: Record<string, string>;
  chains: string[];
  mounts: { name: string; of: string; direct: boolean; path: string; extracted: boolean }[];
}

const wish: fc.Arbitrary<Wish> = fc.record({
  layers: fc.record(
    Object.fromEntries(NAMES.map((of) => [of, fc.constantFrom('a', 'ab', 'abc', 'ac', 'xy')])),
  ),
  chains: fc.uniqueArray(name),
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

const METHODS = ['unpackLayer', 'commitLayer', 'mount', 'dismount', 'removeLayer'] as const;

type Drift = { kind: 'unmount' | 'damage' | 'drop' | 'fail' | 'kill'; at: number };
const drift: fc.Arbitrary<Drift> = fc.record({
  kind: fc.constantFrom(
    'unmount' as const,
    'damage' as const,
    'drop' as const,
    'fail' as const,
    'kill' as const,
  ),
  at: fc.nat(29),
});

function resourcesOf({ chains, mounts }: Wish): Resource[] {
  const images = NAMES.map((of) => image(of));
  const views = mounts.map(({ name: own, of, direct, path, extracted }) =>
    mount(own, {
      path,
      ...(direct || !chains.includes(of) ? { image: of } : { chain: of }),
      ...(extracted ? { view: 'Extracted' } : {}),
    }),
  );
  return [...images, ...chains.map((of) => chain(of)), ...views];
}

async function disturb(world: World, { kind, at }: Drift): Promise<void> {
  const { layers, mounts } = await world.host.observe({ signal: new AbortController().signal });
  const layer = layers[at % Math.max(1, layers.length)];
  const view = mounts[at % Math.max(1, mounts.length)];
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

describe('convergence', () => {
  it('reaches an empty plan from any wish after any drift', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(wish, fc.array(drift, { maxLength: 4 })), { minLength: 1, maxLength: 4 }),
        async (steps) => {
          const world = openWorld();
          try {
            for (const [desired, drifts] of steps) {
              for (const [of, layers] of Object.entries(desired.layers)) world.images.set(of, layers);
              const resources = resourcesOf(desired);
              for (const entry of drifts) await disturb(world, entry);
              for (let attempt = 0; attempt < 8; attempt++) {
                const [run] = await Promise.allSettled([world.apply(resources)]);
                if (world.isDead) world.restart();
                else if (run.status === 'fulfilled' && run.value.failed.length === 0) break;
              }
              world.restart();
              // A path may have been freed only by the last run: then one more is needed to take it.
              expect((await world.apply(resources)).failed).toEqual([]);
              expectEmpty(await world.plan(resources));
              expectValidRecords(world.state);
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
