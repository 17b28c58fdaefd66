import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CimletError } from '../../src/errors.ts';
import type { EffectName } from '../../src/hosts/memory/memory-host.ts';
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

let world: World;
beforeEach(() => {
  world = openWorld();
  world.images.set('app', 'ab');
  world.images.set('other', 'xy');
});
afterEach(() => {
  expectValidRecords(world.state);
  world.close();
});

const APP = [image('app'), chain('app'), mount('app')];
const OTHER = [image('other'), mount('other', { image: 'other' })];

function conditionsOf(key: `Mount/${string}` | `LayerChain/${string}` | `Image/${string}`): string {
  const conditions = world.state.resource(key)?.conditions ?? [];
  return conditions.map(({ type, status, reason }) => `${type}=${status} ${reason}`).join(', ');
}

describe('executing a plan', () => {
  it('records facts, conditions and events, and emits what happens', async () => {
    const result = await world.apply(APP);
    expect(result).toEqual({ succeeded: 5, failed: [], skipped: [] });
    const { resources, snapshots, mounts } = world.state.records();
    expect(resources.map(({ name, appliedRevision }) => `${name} ${appliedRevision}`)).toEqual([
      'app r1',
      'app r1',
      'app r1',
    ]);
    expect(snapshots.map(({ state, neededBy, builder }) => [state, neededBy, builder])).toEqual([
      ['committed', 'LayerChain/app', 'memory/1'],
      ['committed', 'LayerChain/app', 'memory/1'],
    ]);
    expect(mounts).toMatchObject([{ name: 'app', path: '/mnt/app', state: 'mounted' }]);
    expect(conditionsOf('Mount/app')).toBe('Ready=True Succeeded');
    expect(world.state.events('Mount/app')).toMatchObject([{ type: 'Normal', reason: 'Created', count: 1 }]);
    // The image's own end comes at some point of the layers' beginnings.
    const emitted = world.events.map((event) => {
      const { kind } = event.action;
      return event.type === 'action.progressed' ? `${kind} ${event.phase}` : `${event.type} ${kind}`;
    });
    expect(emitted.filter((event) => event.includes('Image'))).toEqual([
      'action.started Image',
      'Image resolving',
      'action.succeeded Image',
    ]);
    expect(emitted.filter((event) => !event.includes('Image'))).toEqual([
      'action.started Snapshot',
      'Snapshot unpacking',
      'Snapshot committing',
      'action.succeeded Snapshot',
      'action.started Snapshot',
      'Snapshot unpacking',
      'Snapshot committing',
      'action.succeeded Snapshot',
      'action.started LayerChain',
      'action.succeeded LayerChain',
      'action.started Mount',
      'Mount mounting',
      'action.succeeded Mount',
    ]);
  });

  it('changes nothing the second time, on the host or in the records', async () => {
    await world.apply(APP);
    const calls = world.host.effects().length;
    const records = world.state.records();
    expect(await world.apply(APP)).toEqual({ succeeded: 0, failed: [], skipped: [] });
    expect(world.host.effects()).toHaveLength(calls);
    expect(world.state.records()).toEqual(records);
  });

  it('records a new revision of unchanged resources', async () => {
    await world.apply(APP);
    await world.apply(APP, { revision: 'r2' });
    const record = world.state.resource('Mount/app');
    expect(record).toMatchObject({ appliedRevision: 'r2', generation: 1 });
    expect(JSON.stringify(record?.conditions)).not.toMatch(/applied r\d/);
  });

  it('counts generations by spec', async () => {
    await world.apply(APP);
    await world.apply([...APP.slice(0, 2), mount('app', { path: '/mnt/b' })], { revision: 'r2' });
    expect(world.state.resource('Mount/app')).toMatchObject({
      generation: 2,
      facts: { mount: { path: '/mnt/b' } },
    });
    expect(world.host.viewAt('/mnt/app')).toBeUndefined();
    expect(world.host.viewAt('/mnt/b')).toBeDefined();
  });

  it('builds a layer once however many want it', async () => {
    const many = Array.from({ length: 20 }, (_, index) => mount(`m${index}`, { image: 'app' }));
    await world.apply([image('app'), ...many]);
    expect(world.host.calls.filter(({ method }) => method === 'unpackLayer')).toHaveLength(2);
  });

  it('keeps to the bounds of each class', async () => {
    let running = 0;
    let most = 0;
    world.close();
    world = openWorld({
      onCall: async ({ method }, stage) => {
        if (method !== 'mount') return;
        running += stage === 'before' ? 1 : -1;
        most = Math.max(most, running);
        await new Promise((resolve) => setImmediate(resolve));
      },
    });
    world.images.set('app', 'ab');
    await world.apply([
      image('app'),
      ...Array.from({ length: 10 }, (_, index) => mount(`m${index}`, { image: 'app' })),
    ]);
    expect(most).toBe(2);
  });
});

describe('failures', () => {
  it('retries what may pass, and says so', async () => {
    world.host.failNext('unpackLayer', new CimletError('busy', 'unpack layer: device busy'));
    world.host.failNext('mount', new CimletError('unavailable', 'mount: no answer'), { stage: 'after' });
    expect((await world.apply(APP)).failed).toEqual([]);
    expect(world.events.filter(({ type }) => type === 'action.retrying')).toMatchObject([
      { attempt: 1, delayMs: 1000, error: { code: 'busy' } },
      { attempt: 1, delayMs: 1000, error: { code: 'unavailable' } },
    ]);
    expectEmpty(await world.plan(APP));
  });

  it('gives up after the limit of spec.retry, skips what depends on it, and does all else', async () => {
    for (let attempt = 1; attempt <= 2; attempt++) {
      world.host.failNext('mount', new CimletError('busy', 'mount /mnt/app: busy'), { call: attempt });
    }
    const fragile = [...APP.slice(0, 2), mount('app', { retry: { limit: 1, backoff: '5s' } })];
    const dependant = mount('other', { image: 'other', dependsOn: [{ kind: 'Mount', name: 'app' }] });
    const result = await world.apply([...fragile, OTHER[0]!, dependant]);
    expect(result.failed.map(({ action }) => action.id)).toEqual(['Mount/app']);
    expect(result.skipped).toMatchObject([{ action: { id: 'Mount/other' }, because: 'Mount/app failed' }]);
    expect(world.events.find(({ type }) => type === 'action.retrying')).toMatchObject({ delayMs: 5000 });
    expect(conditionsOf('Mount/app')).toBe('Ready=False Busy, Stalled=True Busy');
    expect(conditionsOf('Mount/other')).toBe(
      'Ready=False DependencyNotReady, Reconciling=True DependencyNotReady',
    );
    expect(conditionsOf('LayerChain/app')).toBe('Ready=True Succeeded');
    await world.apply([...fragile, OTHER[0]!, dependant]);
    expectEmpty(await world.plan([...fragile, OTHER[0]!, dependant]));
    expect(conditionsOf('Mount/other')).toBe('Ready=True Succeeded');
  });

  it('stalls at once on what cannot pass', async () => {
    world.host.failNext('unpackLayer', new CimletError('corrupt', 'unpack layer: wrong digest'));
    const result = await world.apply([...APP, ...OTHER]);
    expect(result.failed).toHaveLength(1);
    expect(result.skipped.map(({ action }) => action.kind)).toEqual(
      expect.arrayContaining(['Snapshot', 'Mount']),
    );
    // Of whichever image came first.
    const views = ['/mnt/app', '/mnt/other'].map((path) => world.host.viewAt(path));
    expect(views.filter((view) => view !== undefined)).toHaveLength(1);
    expect(world.events.some(({ type }) => type === 'action.retrying')).toBe(false);
    await world.apply([...APP, ...OTHER]);
    expectEmpty(await world.plan([...APP, ...OTHER]));
  });

  it('shows a failed repair of a layer in the chain that needs it', async () => {
    const top = (await world.plan(APP)).actions.filter(({ kind }) => kind === 'Snapshot').at(-1)!;
    await world.apply(APP);
    world.host.damageLayer(
      { chainId: top.name as never, format: 'ForkedCIM' },
      { code: 'file-size', message: 'short' },
    );
    world.host.failNext('unpackLayer', new CimletError('no-space', 'unpack: disk full'));
    world.host.failNext('unpackLayer', new CimletError('access-denied', 'unpack: read-only'), { call: 2 });
    expect((await world.apply(APP)).failed).toHaveLength(1);
    expect(conditionsOf('LayerChain/app')).toBe('Ready=False AccessDenied, Stalled=True AccessDenied');
    await world.apply(APP);
    expect(conditionsOf('LayerChain/app')).toBe('Ready=True Succeeded');
  });

  it('refuses an image that moved between plan and apply', async () => {
    const signal = new AbortController().signal;
    const planned = await world.engine.plan(requestOf(APP), signal);
    world.images.set('app', 'ac');
    const result = await world.engine.apply(planned, { signal });
    expect(result.failed).toMatchObject([{ error: { code: 'failed-precondition', hint: 'plan again' } }]);
    expect(world.host.effects()).toEqual([]);
  });

  it('passes on and records what a host warns of', async () => {
    const mountReally = world.host.mount.bind(world.host);
    world.host.mount = (request, context) => {
      context.warn?.('2 attributes were left out');
      return mountReally(request, context);
    };
    expect((await world.apply(APP)).failed).toEqual([]);
    expect(world.events.filter(({ type }) => type === 'action.warned')).toMatchObject([
      { action: { id: 'Mount/app' }, message: '2 attributes were left out' },
    ]);
    expect(world.state.events('Mount/app')).toContainEqual(
      expect.objectContaining({ type: 'Warning', reason: 'Warned', message: '2 attributes were left out' }),
    );
    expect(conditionsOf('Mount/app')).toBe('Ready=True Succeeded');
  });

  it('lets a layer be built over one whose drift is otherwise only reported', async () => {
    const reporting = (images: string[]) => [
      image('app'),
      image('other'),
      chain('app', images, { driftPolicy: 'Report' }),
    ];
    await world.apply(reporting(['app']));
    const [base] = world.state.records().snapshots.filter(({ parent }) => parent === undefined);
    if (base !== undefined) world.host.dropLayer(base);
    expect((await world.plan(reporting(['app']))).actions).toEqual([]);
    expect((await world.apply(reporting(['app', 'other']))).failed).toEqual([]);
    expectEmpty(await world.plan(reporting(['app', 'other'])));
  });

  it('says of leftovers that apply removes them, and does', async () => {
    world.host.failNext('commitLayer', new CimletError('corrupt', 'commit: bad'));
    await world.apply(APP);
    expect((await world.plan([])).notes).toContainEqual({
      message: '1 leftover of an interrupted run is removed by apply',
    });
    await world.apply([]);
    expect((await world.plan([])).notes).toEqual([]);
  });

  it('records blocked resources as stalled', async () => {
    await world.apply([image('gone'), mount('view', { image: 'gone' })]);
    expect(conditionsOf('Image/gone')).toBe('Ready=False NotFound, Stalled=True NotFound');
    expect(conditionsOf('Mount/view')).toBe(
      'Ready=False DependencyNotReady, Reconciling=True DependencyNotReady',
    );
  });

  it('stops when asked: what runs is waited for, the rest is skipped', async () => {
    const abort = new AbortController();
    let finished = 0;
    world.close();
    world = openWorld({
      onCall: async ({ method }, stage) => {
        if (method !== 'unpackLayer') return;
        if (stage === 'after') finished++;
        else abort.abort();
        await new Promise((resolve) => setImmediate(resolve));
      },
    });
    world.images.set('app', 'ab');
    const result = await world.apply(APP, {}, abort.signal);
    expect(result.failed).toMatchObject([{ error: { code: 'cancelled' } }]);
    expect(result.skipped.length).toBeGreaterThan(0);
    expect(finished).toBe(0);
    await world.apply(APP);
    expectEmpty(await world.plan(APP));
  });
});

describe('a run killed after any effect', () => {
  const effects: EffectName[] = ['unpackLayer', 'commitLayer', 'mount', 'dismount', 'removeLayer'];
  const points = effects.flatMap((method) =>
    (['before', 'after'] as const).flatMap((stage) => [1, 2].map((call) => [method, stage, call] as const)),
  );

  it.each(points)('%s, %s it, call %i', async (method, stage, call) => {
    const moved = [image('app'), chain('app'), mount('app', { path: '/mnt/moved' })];
    let deaths = 0;
    world.killAt(method, stage, call);
    for (const step of [APP, moved, [], APP]) {
      const run = world.apply(step);
      await Promise.allSettled([run]);
      if (!world.isDead) continue;
      deaths++;
      world.restart();
      expect((await world.apply(step)).failed).toEqual([]);
      expectEmpty(await world.plan(step));
      const { leftovers } = await world.host.observe({ signal: new AbortController().signal });
      expect(leftovers).toEqual([]);
      expectValidRecords(world.state);
    }
    expect(deaths).toBe(1);
    await world.apply([]);
    expect(world.state.records()).toEqual({ resources: [], snapshots: [], mounts: [], names: [] });
  });
});

describe('status', () => {
  it('does not promise to repair drift that is only reported', async () => {
    const quiet = [...APP.slice(0, 2), mount('app', { driftPolicy: 'Report' })];
    await world.apply(quiet);
    world.host.dropMount(world.state.records().mounts[0]!.volumeGuid);
    const status = await world.engine.status(new AbortController().signal);
    const view = status.resources.find(({ key }) => key === 'Mount/app');
    expect(view?.conditions[0]?.message).toBe(
      '/mnt/app is not mounted any more (only reported: driftPolicy is Report)',
    );
  });

  it('shows drift in conditions before it is repaired', async () => {
    await world.apply(APP);
    world.host.dropMount(world.state.records().mounts[0]!.volumeGuid);
    const status = await world.engine.status(new AbortController().signal);
    const view = status.resources.find(({ key }) => key === 'Mount/app');
    expect(view?.drift).toEqual(['/mnt/app is not mounted any more']);
    expect(view?.conditions).toMatchObject([
      { type: 'Ready', status: 'False', reason: 'Drifted' },
      { type: 'Stalled', status: 'True' },
    ]);
    expect(status.snapshots.map(({ state }) => state)).toEqual(['committed', 'committed']);
  });
});
