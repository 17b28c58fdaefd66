/** A plan for a part is the plan for everything, as long as the rest is as it is declared. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CimletError } from '../../src/errors.ts';
import type { ObserveOptions } from '../../src/hosts/host.ts';
import { mountVolumeGuid } from '../../src/hosts/identity.ts';
import { BLOCK_CAPABILITIES } from '../../src/hosts/memory/memory-host.ts';
import type { Resource } from '../../src/manifests/resources.ts';
import type { Planned } from '../../src/reconciler/engine.ts';
import { directoriesOf, findUnsettled } from '../../src/reconciler/unsettled.ts';
import {
  chain,
  expectEmpty,
  expectValidRecords,
  image,
  mount,
  openWorld,
  requestOf,
  type World,
} from './support.ts';

const NAMES = ['one', 'two', 'three', 'four'];
const { signal } = new AbortController();

interface Entry {
  name: string;
  layers: string;
  /** What is declared of this name besides the image. */
  has: 'image' | 'chain' | 'mount' | 'chain and mount';
  of: string;
  path: string;
  verified: boolean;
  suspended: boolean;
  after: string | undefined;
}

const entry: fc.Arbitrary<Entry> = fc.record({
  name: fc.constantFrom(...NAMES),
  layers: fc.constantFrom('a', 'ab', 'abc', 'ac', 'xy'),
  has: fc.constantFrom('image', 'chain', 'mount', 'chain and mount', 'chain and mount'),
  of: fc.constantFrom(...NAMES),
  path: fc.constantFrom('/mnt/a', '/mnt/b', '/mnt/c', '/mnt/d', '/mnt/a/sub'),
  verified: fc.boolean(),
  suspended: fc.integer({ max: 9, min: 0 }).map((n) => n === 0),
  after: fc.constantFrom(...NAMES, undefined, undefined, undefined),
});
const wish = fc.uniqueArray(entry, { selector: ({ name }) => name, maxLength: NAMES.length });

/** Of an image with other layers the manifest is another one too: tags that move are no business of a part. */
function declare(world: World, entries: readonly Entry[], block: boolean): Resource[] {
  return entries.flatMap(({ name, layers, has, of, path, verified, suspended, after }) => {
    world.images.set(name, layers);
    const suspend = suspended ? { suspend: true } : {};
    const dependsOn = after === undefined ? {} : { dependsOn: [{ kind: 'Image' as const, name: after }] };
    const resources: Resource[] = [image(name, { source: { ociLayout: layers }, ...suspend })];
    const integrity = block && verified ? ({ integrity: 'Verified' } as const) : {};
    if (has.includes('chain')) resources.push(chain(name, [of], { ...integrity, ...dependsOn }));
    const shown = has === 'chain and mount' ? { chain: name } : { image: of };
    if (has.includes('mount')) resources.push(mount(name, { path, ...shown, ...dependsOn }));
    return resources;
  });
}

async function planPart(world: World, resources: Resource[], revision: string): Promise<Planned> {
  const request = requestOf(resources, { revision });
  const { resources: records } = world.state.records();
  const unsettled = findUnsettled(request.sources, records, directoriesOf(request.sources));
  return world.engine.plan({ ...request, unsettled }, signal);
}

describe('planning for a part', () => {
  it.each([
    ['forked', false],
    ['block', true],
  ])('is planning for everything, after any edits: %s CIMs', async (_name, block) => {
    let parts = 0;
    const property = fc.asyncProperty(fc.array(wish, { minLength: 2, maxLength: 5 }), async (wishes) => {
      const world = openWorld(block ? { capabilities: BLOCK_CAPABILITIES } : {});
      try {
        for (const [step, entries] of wishes.entries()) {
          const revision = `r${step}`;
          const resources = declare(world, entries, block);
          // Whatever is left undone by one run (a path that became free only then) is the next one's.
          for (let run = 0; run < 3; run++) {
            const part = await planPart(world, resources, revision);
            const whole = await world.plan(resources, { revision });
            expect(part.plan.actions).toEqual(whole.actions);
            expect(part.plan.blocked).toEqual(whole.blocked);
            if (part.scope !== undefined) parts++;
            const { failed } = await world.engine.apply(part, { signal });
            expect(failed).toEqual([]);
          }
          const left = await world.plan(resources, { revision });
          expectEmpty(left);
          expectValidRecords(world.state);
          const kept = new Set(left.blocked.map(({ key }) => key));
          const declared = new Set(resources.map(({ kind, metadata }) => `${kind}/${metadata.name}`));
          for (const { kind, name, revision: of, appliedRevision } of world.state.records().resources)
            if (declared.has(`${kind}/${name}`) && !kept.has(`${kind}/${name}`))
              expect([of, appliedRevision]).toEqual([revision, revision]);
        }
      } finally {
        world.close();
      }
    });
    await fc.assert(property, { numRuns: 25 });
    expect(parts).toBeGreaterThan(25);
  });
});

describe('a part', () => {
  /** Two apps on one base layer, applied; and what is looked at from then on. */
  async function openApps(): Promise<{ world: World; apps: Resource[]; looks: ObserveOptions[] }> {
    const world = openWorld();
    world.images.set('one', 'ab');
    world.images.set('two', 'ac');
    const apps = ['one', 'two'].flatMap((name) => [image(name), chain(name), mount(name)]);
    await world.apply(apps);
    const looks: ObserveOptions[] = [];
    const observe = world.host.observe.bind(world.host);
    world.host.observe = (options) => {
      looks.push(options);
      return observe(options);
    };
    return { world, apps, looks };
  }

  it('is looked at alone: what the others are on the host is not asked', async () => {
    const { world, apps, looks } = await openApps();
    const moved = apps.map((each) =>
      each.kind === 'Mount' && each.metadata.name === 'one' ? mount('one', { path: '/mnt/other' }) : each,
    );
    const { plan } = await planPart(world, moved, 'r2');
    expect(plan.actions.map(({ id }) => id)).toEqual(['Mount/one']);
    expect(looks.map(({ focus, paths }) => [focus?.mounts, focus?.layers.length, paths])).toEqual([
      [[mountVolumeGuid('one')], 2, ['/mnt/other']],
    ]);
    world.close();
  });

  it('is everything when layers have to go, which others may need', async () => {
    const { world, apps, looks } = await openApps();
    const one = apps.filter(({ metadata }) => metadata.name === 'one');
    const planned = await planPart(world, one, 'r2');
    expect(planned.scope).toBeUndefined();
    expect(looks.map(({ focus }) => focus === undefined)).toEqual([false, true]);
    // The base layer stays.
    expect(planned.plan.actions.filter(({ kind }) => kind === 'Snapshot')).toHaveLength(1);
    world.close();
  });

  it('records nothing of what was not looked at as gone', async () => {
    const { world, apps } = await openApps();
    world.host.failNext('dismount', new CimletError('access-denied', 'dismount /mnt/two: no'));
    const withoutTwo = apps.filter(({ kind, metadata }) => kind !== 'Mount' || metadata.name !== 'two');
    await world.apply(withoutTwo);
    expect(world.state.records().mounts.map(({ name, state }) => `${name} ${state}`)).toEqual([
      'one mounted',
      'two removing',
    ]);
    const request = requestOf(apps, { revision: 'r3' });
    const planned = await world.engine.plan({ ...request, unsettled: new Set(['Image/one']) }, signal);
    await world.engine.apply(planned, { signal });
    expect(planned.scope).toBeDefined();
    expect(world.state.records().mounts.map(({ name }) => name)).toEqual(['one', 'two']);
    world.close();
  });
});
