/** A plan for a part is the plan for everything, as long as the rest is as it is declared. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RoundScopes } from '../../src/agent/round-scopes.ts';
import { CimletError, type ErrorCode } from '../../src/errors.ts';
import type { ObserveOptions } from '../../src/hosts/host.ts';
import { mountVolumeGuid } from '../../src/hosts/identity.ts';
import { BLOCK_CAPABILITIES, type EffectName } from '../../src/hosts/memory/memory-host.ts';
import type { Resource } from '../../src/manifests/resources.ts';
import { Backoffs } from '../../src/reconciler/backoff.ts';
import type { Planned } from '../../src/reconciler/engine.ts';
import type { Unfinished } from '../../src/reconciler/execute.ts';
import type { DeclaredSource } from '../../src/reconciler/types.ts';
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
  source: string;
  layers: string;
  /** What is declared of this name besides the image. */
  has: 'image' | 'chain' | 'mount' | 'chain and mount';
  of: string;
  path: string;
  verified: boolean;
  suspended: boolean;
  after: string | undefined;
}

/** What is declared from now on, and what happens then. */
interface Step {
  entries: Entry[];
  /** An effect that fails: what it was for is held back for a while. */
  failure: { method: EffectName; code: ErrorCode; call: number } | undefined;
  /** Whose mount somebody takes away, and has it looked at. */
  drifted: string | undefined;
  /** Something else is due as soon as the first action has begun: what builds is carried over. */
  isCut: boolean;
}

const entry: fc.Arbitrary<Entry> = fc.record({
  name: fc.constantFrom(...NAMES),
  source: fc.constantFrom('here', 'here', 'there'),
  layers: fc.constantFrom('a', 'ab', 'abc', 'ac', 'xy'),
  has: fc.constantFrom('image', 'chain', 'mount', 'chain and mount', 'chain and mount'),
  of: fc.constantFrom(...NAMES),
  path: fc.constantFrom('/mnt/a', '/mnt/b', '/mnt/c', '/mnt/d', '/mnt/a/sub'),
  verified: fc.boolean(),
  suspended: fc.integer({ max: 9, min: 0 }).map((n) => n === 0),
  after: fc.constantFrom(...NAMES, undefined, undefined, undefined),
});
const METHODS = ['unpackLayer', 'commitLayer', 'mergeChain', 'removeLayer', 'mount', 'dismount'] as const;
const step: fc.Arbitrary<Step> = fc.record({
  entries: fc.uniqueArray(entry, { selector: ({ name }) => name, maxLength: NAMES.length }),
  failure: fc.option(
    fc.record({
      method: fc.constantFrom<EffectName>(...METHODS),
      code: fc.constantFrom<ErrorCode>('busy', 'access-denied'),
      call: fc.integer({ min: 1, max: 3 }),
    }),
    { nil: undefined },
  ),
  drifted: fc.option(fc.constantFrom(...NAMES), { nil: undefined }),
  isCut: fc.integer({ max: 3, min: 0 }).map((n) => n === 0),
});

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

const HOURS_MS = 2 * 60 * 60_000;
/** Failed runs are waited out one after another. */
const MOST_RUNS = 12;

/** What the agent does in its rounds, each planned for a part and for everything: the two must be one. */
class Rounds {
  readonly #world: World;
  readonly #scopes = new RoundScopes();
  readonly #backoffs: Backoffs;
  #unfinished: Unfinished | undefined;
  #now = 0;
  readonly seen = { parts: 0, held: 0, drift: 0, failed: 0, carriedOver: 0 };

  constructor(world: World) {
    this.#world = world;
    this.#backoffs = new Backoffs({ now: () => this.#now, random: () => 0 });
  }

  async run(sources: readonly DeclaredSource[], { failure, drifted, isCut }: Step): Promise<void> {
    if (failure !== undefined) {
      const { method, code, call } = failure;
      this.#world.host.failNext(method, new CimletError(code, `${method}: no`), { call });
    }
    await this.#untilRest(sources, isCut);
    if (drifted !== undefined && (await this.#drift(drifted))) await this.#untilRest(sources, isCut);
  }

  async #untilRest(sources: readonly DeclaredSource[], isCut: boolean): Promise<void> {
    for (let run = 0; run < MOST_RUNS; run++) {
      if ((await this.#round(sources, isCut && run === 0)) && run > 0) return;
      // The first that fails is held back in the round after it.
      if (run > 0) this.#now += HOURS_MS;
    }
    throw new Error('it never comes to rest');
  }

  async #drift(name: string): Promise<boolean> {
    const { mounts } = await this.#world.host.observe({ signal });
    const isThere = mounts.some(({ volumeGuid }) => volumeGuid === mountVolumeGuid(name));
    if (isThere) this.#world.host.dropMount(mountVolumeGuid(name));
    this.#scopes.ask(`Mount/${name}`);
    return isThere;
  }

  /** True when there was nothing to do, and nothing waits. */
  async #round(sources: readonly DeclaredSource[], isCut: boolean): Promise<boolean> {
    const { engine, state } = this.#world;
    const resources = sources.flatMap((source) => source.resources);
    await Promise.allSettled(this.#unfinished?.running.map(({ done }) => done) ?? []);
    this.#backoffs.letThrough(resources);
    const records = state.records().resources;
    const scope = { records, troubled: this.#backoffs.troubled(), resyncMs: Number.MAX_SAFE_INTEGER };
    const unsettled = this.#scopes.next(sources, scope);
    const request = { sources, held: this.#backoffs.held(resources) };
    const part = await engine.plan({ ...request, unsettled }, signal);
    const whole = await engine.plan(request, signal);
    expect(part.plan.actions).toEqual(whole.plan.actions);
    expect(part.plan.blocked).toEqual(whole.plan.blocked);
    if (part.scope === undefined) this.#scopes.lookedAtAll();
    this.#see(part, request.held.size);
    const pause = new AbortController();
    const { failed, unfinished } = await engine.apply(part, {
      signal,
      pause: pause.signal,
      carriedOver: this.#unfinished,
      backoffs: this.#backoffs,
      onEvent: ({ type }) => {
        if (isCut && type === 'action.started') pause.abort();
      },
    });
    this.#unfinished = unfinished;
    this.seen.failed += failed.length;
    if (part.scope === undefined && pause.signal.aborted) this.#scopes.requireWhole();
    return part.plan.actions.length === 0 && request.held.size === 0;
  }

  #see({ scope, plan }: Planned, held: number): void {
    if (scope !== undefined) this.seen.parts++;
    if (scope !== undefined && held > 0) this.seen.held++;
    if (scope !== undefined && plan.summary.drift > 0) this.seen.drift++;
    if ((this.#unfinished?.running.length ?? 0) > 0) this.seen.carriedOver++;
  }
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
  ])(
    'is planning for everything, whatever is edited, fails, drifts or is cut short: %s CIMs',
    async (_name, block) => {
      const seen = { parts: 0, held: 0, drift: 0, failed: 0, carriedOver: 0 };
      const property = fc.asyncProperty(fc.array(step, { minLength: 2, maxLength: 5 }), async (steps) => {
        const world = openWorld(block ? { capabilities: BLOCK_CAPABILITIES } : {});
        try {
          const rounds = new Rounds(world);
          for (const [index, each] of steps.entries()) {
            const revision = `r${index}`;
            const declared = declare(world, each.entries, block);
            const sources = ['here', 'there'].map((id): DeclaredSource => {
              const names = new Set(
                each.entries.filter(({ source }) => source === id).map(({ name }) => name),
              );
              const resources = declared.filter(({ metadata }) => names.has(metadata.name));
              return { id, revision, prune: true, resources };
            });
            await rounds.run(sources, each);
            const { plan } = await world.engine.plan({ sources }, signal);
            expectEmpty(plan);
            expectValidRecords(world.state);
            const kept = new Set(plan.blocked.map(({ key }) => key));
            const keys = new Set(declared.map(({ kind, metadata }) => `${kind}/${metadata.name}`));
            for (const { kind, name, revision: of, appliedRevision } of world.state.records().resources)
              if (keys.has(`${kind}/${name}`) && !kept.has(`${kind}/${name}`))
                expect([of, appliedRevision]).toEqual([revision, revision]);
          }
          for (const what of Object.keys(seen) as (keyof typeof seen)[]) seen[what] += rounds.seen[what];
        } finally {
          world.close();
        }
      });
      await fc.assert(property, { numRuns: 20 });
      // All of it was met.
      expect(seen.parts).toBeGreaterThan(20);
      for (const [what, count] of Object.entries(seen)) expect(`${what} ${count}`).not.toBe(`${what} 0`);
    },
  );
});

describe('a part', () => {
  /** Two apps on one base layer, applied; and what is looked at from then on. */
  async function openApps() {
    const asked: string[] = [];
    const world = openWorld({ onResolve: (name) => asked.push(name) });
    world.images.set('one', 'ab');
    world.images.set('two', 'ac');
    const apps = ['one', 'two'].flatMap((name) => [image(name), chain(name), mount(name)]);
    await world.apply(apps);
    asked.length = 0;
    const looks: ObserveOptions[] = [];
    const observe = world.host.observe.bind(world.host);
    world.host.observe = (options) => {
      looks.push(options);
      return observe(options);
    };
    return { world, apps, looks, asked };
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

  it('is everything when layers have to go, which others may need; what it names is not asked for again', async () => {
    const { world, apps, looks, asked } = await openApps();
    world.images.set('one', 'xy');
    const other = apps.map((each) =>
      each.kind === 'Image' && each.metadata.name === 'one'
        ? image('one', { source: { ociLayout: 'xy' } })
        : each,
    );
    const planned = await planPart(world, other, 'r2');
    expect(planned.scope).toBeUndefined();
    expect(looks.map(({ focus }) => focus === undefined)).toEqual([false, true]);
    expect(asked).toEqual(['one', 'two']);
    // The base layer stays.
    expect(
      planned.plan.actions.filter(({ kind, verb }) => kind === 'Snapshot' && verb === 'delete'),
    ).toHaveLength(1);
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
