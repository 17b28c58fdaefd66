import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CimletError } from '../../src/errors.ts';
import type { PlannedAction } from '../../src/reconciler/types.ts';
import {
  chain,
  digest,
  expectEmpty,
  expectValidRecords,
  image,
  mount,
  openWorld,
  requestOf,
  type World,
} from './support.ts';

const { signal } = new AbortController();
const APP = [image('app', { retry: { limit: 0 } }), chain('app'), mount('app')];

/** By the letter of the layer: what its transfer waits for. */
let transfers: Map<string, PromiseWithResolvers<void>>;
let world: World;
beforeEach(() => {
  transfers = new Map([...'abc'].map((letter) => [letter, Promise.withResolvers<void>()]));
  const letterOf = new Map([...'abc'].map((letter) => [digest(`blob ${letter}`), letter]));
  world = openWorld({
    fetchLayer: async (blob) => transfers.get(letterOf.get(blob.digest) ?? '')?.promise,
  });
  world.images.set('app', 'abc');
});
afterEach(() => {
  expectValidRecords(world.state);
  world.close();
});

/** Starts applying; `succeeded` waits for the action of a layer, by its place in the chain. */
async function startApplying(pause?: AbortSignal) {
  const planned = await world.engine.plan(requestOf(APP), signal);
  const done = new Map(planned.plan.actions.map(({ id }) => [id, Promise.withResolvers<void>()]));
  const layers = planned.plan.actions.filter(({ kind }) => kind === 'Snapshot');
  const result = world.engine.apply(planned, {
    signal,
    pause,
    onEvent: ({ type, action }) => {
      if (type === 'action.succeeded') done.get(action.id)?.resolve();
    },
  });
  return { result, layers, succeeded: (action: PlannedAction | undefined) => done.get(action!.id)?.promise };
}

const arrive = (letters: string) => {
  for (const letter of letters) transfers.get(letter)?.resolve();
};

describe('layers of an image that is still being fetched', () => {
  it('are built as soon as their own blob and the layers below are there', async () => {
    const { result, layers, succeeded } = await startApplying();
    arrive('a');
    await succeeded(layers[0]);
    arrive('c');
    expect(world.host.effects().filter(({ method }) => method === 'unpackLayer')).toHaveLength(1);
    arrive('b');
    await succeeded(layers[2]);
    expect(await result).toEqual({ succeeded: 6, failed: [], skipped: [] });
    expectEmpty(await world.plan(APP));
  });

  it('are built although another one fails, which takes only what needs it with it', async () => {
    const { result, layers } = await startApplying();
    transfers.get('c')?.reject(new CimletError('not-found', 'no such blob'));
    arrive('ab');
    const { succeeded, failed, skipped } = await result;
    expect(succeeded).toBe(2);
    expect(failed.map(({ action, error }) => `${action.id}: ${error.message}`)).toEqual([
      'Image/app: no such blob',
    ]);
    expect(skipped.map(({ action }) => action.id).sort()).toEqual(
      ['LayerChain/app', 'Mount/app', layers[2]?.id].sort(),
    );
    expect((await world.host.observe({ signal })).layers).toHaveLength(2);
  });

  it('are built by the next run when what fetches them is taken over from a paused one', async () => {
    const pause = new AbortController();
    const first = await startApplying(pause.signal);
    arrive('a');
    await first.succeeded(first.layers[0]);
    pause.abort();
    const { unfinished } = await first.result;
    expect(unfinished?.running.map(({ action }) => action.id)).toEqual(['Image/app']);
    arrive('b');
    const planned = await world.engine.plan(requestOf(APP), signal);
    const second = world.engine.apply(planned, {
      signal,
      carriedOver: unfinished,
      onEvent: ({ type, action }) => {
        if (type === 'action.succeeded' && action.id === first.layers[1]?.id) arrive('c');
      },
    });
    expect(await second).toMatchObject({ failed: [], skipped: [] });
    expectEmpty(await world.plan(APP));
  });

  it('are not waited for when the run is stopped', async () => {
    const stop = new AbortController();
    transfers.set('b', Promise.withResolvers());
    stop.signal.addEventListener('abort', () =>
      transfers.get('b')?.reject(new CimletError('cancelled', 'fetch: cancelled')),
    );
    const planned = await world.engine.plan(requestOf(APP), signal);
    arrive('ac');
    const result = await world.engine.apply(planned, {
      signal: stop.signal,
      onEvent: ({ type, action }) => {
        if (type === 'action.succeeded' && action.kind === 'Snapshot') stop.abort();
      },
    });
    expect(result.succeeded).toBe(1);
    expect(result.failed.map(({ action }) => action.id)).toEqual(['Image/app']);
  });
});
