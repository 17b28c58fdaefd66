import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { EffectName } from '../../src/hosts/memory/memory-host.ts';
import { chain, expectEmpty, image, mount, openWorld, requestOf, type World } from './support.ts';

const signal = new AbortController().signal;
const APP = [image('app'), chain('app'), mount('app')];
const TOOLS = [image('tools'), chain('tools'), mount('tools')];

let world: World;
/** The first call of this effect is held up until `release`. */
let heldUp: EffectName;
let reached: Promise<void>;
let release: () => void;
beforeEach(() => {
  const arrival = Promise.withResolvers<void>();
  const leave = Promise.withResolvers<void>();
  let isFirst = true;
  reached = arrival.promise;
  release = leave.resolve;
  world = openWorld({
    onCall: ({ method }, stage) => {
      if (method !== heldUp || stage !== 'before' || !isFirst) return;
      isFirst = false;
      arrival.resolve();
      return leave.promise;
    },
  });
  world.images.set('app', 'ab').set('tools', 'xy');
});
afterEach(() => world.close());

const calls = (method: EffectName) => world.host.effects().filter((effect) => effect.method === method);

/** Runs the plan of these resources until the held-up call is reached, then pauses it. */
async function runUntilPaused(resources: typeof APP) {
  const planned = await world.engine.plan(requestOf(resources), signal);
  const pause = new AbortController();
  const running = world.engine.apply(planned, { signal, pause: pause.signal });
  await reached;
  pause.abort();
  return { running };
}

describe('a run that is paused', () => {
  it('hands back what builds, and the next run takes it over', async () => {
    heldUp = 'unpackLayer';
    const first = await (await runUntilPaused(APP)).running;
    expect(first.unfinished?.running.map(({ action }) => action.kind)).toContain('Snapshot');
    const planned = await world.engine.plan(requestOf([...APP, ...TOOLS]), signal);
    const second = world.engine.apply(planned, { signal, carriedOver: first.unfinished });
    release();
    const { failed, skipped, unfinished } = await second;
    expect({ failed, skipped, unfinished }).toEqual({ failed: [], skipped: [], unfinished: undefined });
    expect(calls('unpackLayer')).toHaveLength(4);
    expect(world.state.resource('Mount/app')?.conditions).toMatchObject([{ type: 'Ready', status: 'True' }]);
    expectEmpty(await world.plan([...APP, ...TOOLS]));
  });

  it('takes over a build whose blob has moved to another file meanwhile', async () => {
    heldUp = 'unpackLayer';
    const first = await (await runUntilPaused(APP)).running;
    const planned = await world.engine.plan(requestOf(APP), signal);
    for (const { work } of planned.plan.actions)
      if (work.do === 'buildLayer')
        work.request.blob = { ...work.request.blob, file: `${work.request.blob.file}2` };
    const second = world.engine.apply(planned, { signal, carriedOver: first.unfinished });
    release();
    await second;
    const base = first.unfinished?.running.find(({ action }) => action.kind === 'Snapshot')?.action.name;
    expect(calls('unpackLayer').filter(({ subject }) => subject === base)).toHaveLength(1);
  });

  it('lets healthy resources go on while one build hangs', async () => {
    heldUp = 'unpackLayer';
    const first = await (await runUntilPaused(APP)).running;
    const planned = await world.engine.plan(requestOf([...APP, ...TOOLS]), signal);
    const mounted = Promise.withResolvers<void>();
    const second = world.engine.apply(planned, {
      signal,
      carriedOver: first.unfinished,
      onEvent: (event) => {
        if (event.type === 'action.succeeded' && event.action.id === 'Mount/tools') mounted.resolve();
      },
    });
    await mounted.promise;
    expect(world.state.resource('Mount/app')?.conditions).toMatchObject([{ status: 'False' }, {}]);
    release();
    expect((await second).failed).toEqual([]);
  });

  it('has what is no longer wanted aborted and waited for, before anything else is done', async () => {
    heldUp = 'unpackLayer';
    const first = await (await runUntilPaused(APP)).running;
    const planned = await world.engine.plan(requestOf(TOOLS), signal);
    const second = world.engine.apply(planned, { signal, carriedOver: first.unfinished });
    await new Promise((resolve) => setImmediate(resolve));
    expect(calls('unpackLayer')).toHaveLength(1);
    release();
    expect((await second).failed).toEqual([]);
    const { layers } = await world.host.observe({ signal });
    expect(layers).toHaveLength(2);
    expectEmpty(await world.plan(TOOLS));
  });

  it('has nothing cleaned up while something still builds, whatever looks like a leftover', async () => {
    heldUp = 'commitLayer';
    const first = await (await runUntilPaused(APP)).running;
    const planned = await world.engine.plan(requestOf([...APP, ...TOOLS]), signal);
    expect(planned.observed.leftovers).not.toEqual([]);
    const second = world.engine.apply(planned, { signal, carriedOver: first.unfinished });
    release();
    expect((await second).failed).toEqual([]);
    expect(calls('cleanLeftovers')).toEqual([]);
  });

  it('waits for what changes what is shown', async () => {
    heldUp = 'mount';
    const { running } = await runUntilPaused(APP);
    let isOver = false;
    const ended = running.finally(() => {
      isOver = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect(isOver).toBe(false);
    release();
    expect(await ended).toEqual({ succeeded: 5, failed: [], skipped: [] });
    expect(world.state.resource('Mount/app')?.conditions).toMatchObject([{ type: 'Ready', status: 'True' }]);
  });

  it('waits for what changes when it is stopped too, and lets others work meanwhile', async () => {
    heldUp = 'dismount';
    await world.apply(APP);
    const planned = await world.engine.plan(requestOf([image('app'), chain('app')]), signal);
    const pause = new AbortController();
    const stop = new AbortController();
    const running = world.engine.apply(planned, { signal: stop.signal, pause: pause.signal });
    await reached;
    pause.abort();
    stop.abort();
    await new Promise((resolve) => setImmediate(resolve));
    release();
    expect((await running).unfinished).toBeUndefined();
  });

  it('starts what it can although it was paused before', async () => {
    heldUp = 'dismount';
    await world.apply(APP);
    for (const { volumeGuid } of world.state.records().mounts) world.host.dropMount(volumeGuid);
    const repair = await world.engine.plan(requestOf(APP), signal);
    await world.engine.apply(repair, { signal, pause: AbortSignal.abort() });
    expect(world.host.viewAt('/mnt/app')).toBeDefined();
  });
});
