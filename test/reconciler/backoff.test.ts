import { beforeEach, describe, expect, it } from 'vitest';
import { CimletError } from '../../src/errors.ts';
import { Backoffs } from '../../src/reconciler/backoff.ts';
import { chain, expectEmpty, image, mount, openWorld, requestOf } from './support.ts';

const down = new CimletError('unavailable', 'pull app: connection refused', { hint: 'start the registry' });
let now = 0;
let backoffs: Backoffs;
beforeEach(() => {
  now = Date.parse('2026-01-01T00:00:00Z');
  backoffs = new Backoffs({ now: () => now, random: () => 0 });
});
/** Milliseconds between each failure and the next attempt. */
const waits = (count: number, resource = image('app')) =>
  Array.from({ length: count }, () => {
    backoffs.failed(resource, down);
    const wait = backoffs.nextInMs() ?? Number.NaN;
    now += wait;
    return wait / 1000;
  });

describe('a resource that failed', () => {
  it('waits twice as long each time, up to five minutes', () => {
    expect(waits(11)).toEqual([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
  });

  it('waits as its spec.retry says', () => {
    expect(waits(3, image('app', { retry: { backoff: '10s' } }))).toEqual([10, 20, 40]);
    backoffs.release();
    expect(waits(1, image('slow', { retry: { backoff: '20m' } }))).toEqual([1200]);
  });

  it('is held until its time, with the reason and when it is tried again', () => {
    expect(backoffs.failed(image('app'), down)).toBe(false);
    expect([...backoffs.held([image('app'), image('other')])]).toEqual([
      [
        'Image/app',
        {
          code: 'unavailable',
          message: 'pull app: connection refused',
          hint: 'start the registry',
          retryAt: '2026-01-01T00:00:01.000Z',
        },
      ],
    ]);
    now += 1000;
    expect(backoffs.held([image('app')]).size).toBe(0);
    backoffs.letThrough([image('app')]);
    expect(backoffs.nextInMs()).toBeUndefined();
  });

  it('is still due when somebody has only asked what is held', () => {
    backoffs.failed(image('app'), down);
    now += 1000;
    expect(backoffs.held([image('app')]).size).toBe(0);
    expect(backoffs.nextInMs()).toBe(0);
  });

  it('is tried at once when its manifest changes or it is released', () => {
    backoffs.failed(image('app'), down);
    expect(backoffs.held([image('app', { timeout: '1m' })]).size).toBe(0);
    backoffs.failed(image('app'), down);
    backoffs.release('Image/app');
    expect(backoffs.held([image('app')]).size).toBe(0);
  });

  it('is stalled for an hour once its attempts are used up, or when no attempt can help', () => {
    const once = image('app', { retry: { limit: 1 } });
    expect([backoffs.failed(once, down), backoffs.failed(once, down)]).toEqual([false, true]);
    expect(backoffs.held([once]).get('Image/app')?.retryAt).toBeUndefined();
    expect(backoffs.nextInMs()).toBe(3_600_000);
    expect(backoffs.failed(image('bad'), new CimletError('corrupt', 'layer 1: wrong digest'))).toBe(true);
    expect(backoffs.failed(image('bug'), new Error('oops'))).toBe(true);
  });

  it('never comes back in step with others', () => {
    const delays = [0, 0.5, 0.999].map((random) => {
      const jittered = new Backoffs({ now: () => now, random: () => random });
      jittered.failed(image('app'), down);
      return jittered.nextInMs();
    });
    expect(delays.map((delay) => Math.round(delay ?? 0))).toEqual([1000, 1100, 1200]);
  });
});

it('an execution with backoffs attempts once, says that it goes on, and leaves it out until its time', async () => {
  const signal = new AbortController().signal;
  let failures = 1;
  const world = openWorld({
    onCall: ({ method }, stage) => {
      if (method === 'mount' && stage === 'before' && failures-- > 0)
        throw new CimletError('unavailable', 'mount /mnt/app: try later');
    },
  });
  try {
    world.images.set('app', 'ab');
    const resources = [image('app'), mount('app', { image: 'app' })];
    const plan = () => world.engine.plan({ ...requestOf(resources), held: backoffs.held(resources) }, signal);
    const { failed } = await world.engine.apply(await plan(), { signal, backoffs });
    expect(failed).toHaveLength(1);
    const conditions = () => world.state.resource('Mount/app')?.conditions;
    expect(conditions()).toMatchObject([{ type: 'Ready', status: 'False' }, { type: 'Reconciling' }]);
    const waiting = await plan();
    expectEmpty(waiting.plan);
    await world.engine.apply(waiting, { signal, backoffs });
    expect(conditions()).toMatchObject([
      { type: 'Ready', message: 'mount /mnt/app: try later' },
      { type: 'Reconciling', reason: 'Unavailable' },
    ]);
    now += 1000;
    expect((await world.engine.apply(await plan(), { signal, backoffs })).failed).toEqual([]);
    expect(conditions()).toMatchObject([{ type: 'Ready', status: 'True' }]);
    expect(backoffs.nextInMs()).toBeUndefined();
  } finally {
    world.close();
  }
});

it('a chain whose layer was built again starts over when it fails the next time', async () => {
  const world = openWorld();
  world.images.set('app', 'a');
  const resources = [image('app'), chain('app')];
  const signal = new AbortController().signal;
  const run = async () => {
    backoffs.letThrough(resources);
    const request = { ...requestOf(resources), held: backoffs.held(resources) };
    await world.engine.apply(await world.engine.plan(request, signal), { signal, backoffs });
  };
  const failOnce = async () => {
    const { layers } = await world.host.observe({ signal });
    for (const layer of layers) world.host.damageLayer(layer, { code: 'file-size', message: 'short' });
    world.host.failNext('unpackLayer', down);
    await run();
  };
  await run();
  await failOnce();
  expect(backoffs.nextInMs()).toBe(1000);
  now += 1000;
  await run();
  await run();
  await failOnce();
  expect(backoffs.nextInMs()).toBe(1000);
  world.close();
});
