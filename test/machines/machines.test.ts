/** Every row of the transition tables: the charts alone, then with effects and a simulated clock. */

import { describe, expect, it } from 'vitest';
import { type AnyStateMachine, createActor, SimulatedClock, waitFor } from 'xstate';
import { CimletError } from '../../src/errors.ts';
import type { ChainId, DiffId, Digest, LayerFormat, MountRequest, VolumeGuid } from '../../src/hosts/host.ts';
import { driveMachine } from '../../src/machines/drive-machine.ts';
import { createImageMachine } from '../../src/machines/image-machine.ts';
import { createMergeMachine, type MergeGoal } from '../../src/machines/merge-machine.ts';
import { createMountMachine, type MountGoal } from '../../src/machines/mount-machine.ts';
import { backoffMs, DEFAULT_RETRY } from '../../src/machines/retry.ts';
import { createSnapshotMachine, type SnapshotGoal } from '../../src/machines/snapshot-machine.ts';

const format: LayerFormat = 'ForkedCIM';
const chainId = 'sha256:c' as ChainId;
const diffId = 'sha256:d' as DiffId;
const volumeGuid = 'guid' as VolumeGuid;
const blob = { file: 'x', offset: 0, size: 1, digest: 'sha256:b' as Digest, mediaType: 'tar' };
const build: SnapshotGoal = { state: 'committed', request: { chainId, diffId, parents: [], format, blob } };
const removal: SnapshotGoal = { state: 'absent', ref: { chainId, format } };
const request: MountRequest = {
  volumeGuid,
  path: '/m',
  chain: [chainId],
  format,
  access: 'ReadOnly',
  view: 'Kernel',
};
const merge: MergeGoal = { state: 'merged', request: { chain: [chainId, chainId], format: 'BlockCIM' } };
const unmerge: MergeGoal = { state: 'absent', top: { chainId, format: 'BlockCIM' } };
const show: MountGoal = { state: 'mounted', request };
const writable: MountGoal = {
  state: 'mounted',
  request: { ...request, access: 'ReadWrite', snapshot: 'mount/app' },
  snapshot: { key: 'mount/app', kind: 'active', chain: request.chain, format: request.format },
};
const discard: MountGoal = { state: 'absent', volumeGuid, snapshot: 'mount/app' };
const busy = new CimletError('busy', 'busy');
const corrupt = new CimletError('corrupt', 'corrupt');

type Outcome = Error | 'done';
type Script = Record<string, Outcome[]>;

/** Effects that end as the script says, then well; they note each call. */
function scripted(script: Script) {
  const calls: string[] = [];
  const play = async (name: string): Promise<void> => {
    calls.push(name);
    const outcome = script[name]?.shift() ?? 'done';
    if (outcome !== 'done') throw outcome;
  };
  return {
    calls,
    snapshot: createSnapshotMachine({
      unpackLayer: () => play('unpack'),
      commitLayer: async (ref) => {
        await play('commit');
        return { ...ref, diffId, bytes: 1, files: 1, builder: 'b' };
      },
      removeLayer: () => play('remove'),
    }),
    mount: createMountMachine({
      mount: async (wanted) => {
        await play('mount');
        return { ...wanted, chainId };
      },
      dismount: () => play('dismount'),
      prepareSnapshot: () => play('prepare'),
      removeSnapshot: () => play('removeSnapshot'),
    }),
    merge: createMergeMachine({
      mergeChain: async (wanted) => {
        await play('merge');
        return { ...wanted, chain: [...wanted.chain], bytes: 1, builder: 'b' };
      },
      removeMerge: () => play('remove'),
    }),
    image: createImageMachine({ resolveImage: () => play('resolve'), fetchBlobs: () => play('fetch') }),
  };
}

/** The states gone through, with backing off ended at once. */
async function walk(machine: AnyStateMachine, input: unknown): Promise<string[]> {
  const clock = new SimulatedClock();
  const actor = createActor(machine, { input, clock });
  const states: string[] = [];
  actor.subscribe(({ value }) => {
    if (states.at(-1) !== value) states.push(String(value));
    if (value === 'backingOff') queueMicrotask(() => clock.increment(DEFAULT_RETRY.capMs));
  });
  actor.start();
  await waitFor(actor, ({ status }) => status === 'done');
  return states;
}

const retry = DEFAULT_RETRY;
const four = () => [busy, busy, busy, busy];

describe('snapshot machine', () => {
  const rows: [string, SnapshotGoal, 'absent' | 'committed' | 'drifted', Script, string[]][] = [
    ['wanted absent, is absent', removal, 'absent', {}, ['absent']],
    ['wanted absent, is there', removal, 'committed', {}, ['removing', 'absent']],
    ['wanted committed, is committed', build, 'committed', {}, ['committed']],
    ['wanted committed, is damaged', build, 'drifted', {}, ['unpacking', 'committing', 'committed']],
    ['wanted committed, is absent', build, 'absent', {}, ['unpacking', 'committing', 'committed']],
    [
      'unpacking fails, may pass',
      build,
      'absent',
      { unpack: [busy] },
      ['unpacking', 'backingOff', 'unpacking', 'committing', 'committed'],
    ],
    [
      'committing fails, may pass',
      build,
      'absent',
      { commit: [busy] },
      ['unpacking', 'committing', 'backingOff', 'committing', 'committed'],
    ],
    [
      'removing fails, may pass',
      removal,
      'committed',
      { remove: [busy] },
      ['removing', 'backingOff', 'removing', 'absent'],
    ],
    ['unpacking fails for good', build, 'absent', { unpack: [corrupt] }, ['unpacking', 'stalled']],
    [
      'committing fails for good',
      build,
      'absent',
      { commit: [corrupt] },
      ['unpacking', 'committing', 'stalled'],
    ],
    ['removing fails for good', removal, 'committed', { remove: [corrupt] }, ['removing', 'stalled']],
    [
      'no attempts left',
      removal,
      'committed',
      { remove: four() },
      ['removing', 'backingOff', 'removing', 'backingOff', 'removing', 'backingOff', 'removing', 'stalled'],
    ],
    ['a bug', build, 'absent', { unpack: [new TypeError('bug')] }, ['unpacking', 'stalled']],
  ];
  it.each(rows)('%s', async (_name, goal, observed, script, states) => {
    expect(await walk(scripted(script).snapshot, { goal, observed, retry })).toEqual(states);
  });

  it('counts attempts anew for each effect', async () => {
    const { snapshot, calls } = scripted({ unpack: [busy, busy, busy], commit: [busy, busy, busy] });
    await walk(snapshot, { goal: build, observed: 'absent', retry });
    expect(calls).toEqual(['unpack', 'unpack', 'unpack', 'unpack', 'commit', 'commit', 'commit', 'commit']);
  });
});

describe('merge machine', () => {
  const rows: [string, MergeGoal, Script, string[]][] = [
    ['wanted merged', merge, {}, ['merging', 'merged']],
    ['wanted absent', unmerge, {}, ['removing', 'absent']],
    ['merging fails, may pass', merge, { merge: [busy] }, ['merging', 'backingOff', 'merging', 'merged']],
    [
      'removing fails, may pass',
      unmerge,
      { remove: [busy] },
      ['removing', 'backingOff', 'removing', 'absent'],
    ],
    ['merging fails for good', merge, { merge: [corrupt] }, ['merging', 'stalled']],
    ['removing fails for good', unmerge, { remove: [corrupt] }, ['removing', 'stalled']],
    [
      'no attempts left',
      merge,
      { merge: four() },
      ['merging', 'backingOff', 'merging', 'backingOff', 'merging', 'backingOff', 'merging', 'stalled'],
    ],
  ];
  it.each(rows)('%s', async (_name, goal, script, states) => {
    expect(await walk(scripted(script).merge, { goal, retry })).toEqual(states);
  });

  it('waits for a merge in hand when it is cancelled, and starts no retry', async () => {
    const abort = new AbortController();
    const { merge: machine, calls } = scripted({ merge: [busy] });
    const clock = new SimulatedClock();
    const run = driveMachine(
      machine,
      { goal: merge, retry },
      { signal: abort.signal, clock, onRetry: () => abort.abort() },
    );
    await expect(run).rejects.toMatchObject({ code: 'cancelled' });
    expect(calls).toEqual(['merge']);
  });
});

describe('mount machine', () => {
  const rows: [string, MountGoal, Script, string[]][] = [
    ['nothing to take away', show, {}, ['mounting', 'mounted']],
    ['something to take away', { ...show, replaces: volumeGuid }, {}, ['dismounting', 'mounting', 'mounted']],
    ['wanted absent', { state: 'absent', volumeGuid }, {}, ['dismounting', 'absent']],
    [
      'mounting fails after dismounting: resumes halfway',
      { ...show, replaces: volumeGuid },
      { mount: [busy] },
      ['dismounting', 'mounting', 'backingOff', 'mounting', 'mounted'],
    ],
    [
      'dismounting fails, may pass',
      { state: 'absent', volumeGuid },
      { dismount: [busy] },
      ['dismounting', 'backingOff', 'dismounting', 'absent'],
    ],
    [
      'dismounting fails for good',
      { state: 'absent', volumeGuid },
      { dismount: [corrupt] },
      ['dismounting', 'stalled'],
    ],
    ['mounting fails for good', show, { mount: [corrupt] }, ['mounting', 'stalled']],
    ['writable', writable, {}, ['preparing', 'mounting', 'mounted']],
    [
      'writable, something to take away',
      { ...writable, replaces: volumeGuid },
      {},
      ['dismounting', 'preparing', 'mounting', 'mounted'],
    ],
    [
      'preparing fails, may pass',
      writable,
      { prepare: [busy] },
      ['preparing', 'backingOff', 'preparing', 'mounting', 'mounted'],
    ],
    ['preparing fails for good', writable, { prepare: [corrupt] }, ['preparing', 'stalled']],
    ['wanted absent with its snapshot', discard, {}, ['dismounting', 'removing', 'absent']],
    [
      'removing fails, may pass: resumes halfway',
      discard,
      { removeSnapshot: [busy] },
      ['dismounting', 'removing', 'backingOff', 'removing', 'absent'],
    ],
    ['dismounting fails: the snapshot stays', discard, { dismount: [corrupt] }, ['dismounting', 'stalled']],
  ];
  it.each(rows)('%s', async (_name, goal, script, states) => {
    expect(await walk(scripted(script).mount, { goal, retry })).toEqual(states);
  });
});

describe('image machine', () => {
  const rows: [string, Script, string[]][] = [
    ['all well', {}, ['resolving', 'fetching', 'present']],
    [
      'resolving fails, may pass',
      { resolve: [busy] },
      ['resolving', 'backingOff', 'resolving', 'fetching', 'present'],
    ],
    [
      'fetching fails, may pass',
      { fetch: [busy] },
      ['resolving', 'fetching', 'backingOff', 'fetching', 'present'],
    ],
    ['resolving fails for good', { resolve: [corrupt] }, ['resolving', 'stalled']],
    ['fetching fails for good', { fetch: [corrupt] }, ['resolving', 'fetching', 'stalled']],
  ];
  it.each(rows)('%s', async (_name, script, states) => {
    expect(await walk(scripted(script).image, { image: 'app', retry })).toEqual(states);
  });
});

describe('time', () => {
  it.each([
    [1, 1000],
    [2, 2000],
    [3, 4000],
    [10, 60_000],
  ])('after failure %i waits %i ms', (attempts, expected) => {
    expect(backoffMs({ retry, attempts })).toBe(expected);
  });

  it('waits exactly as long', async () => {
    const clock = new SimulatedClock();
    const { mount } = scripted({ mount: [busy] });
    const actor = createActor(mount, { input: { goal: show, retry }, clock });
    actor.start();
    await waitFor(actor, (snapshot) => snapshot.matches('backingOff'));
    clock.increment(999);
    expect(actor.getSnapshot().value).toBe('backingOff');
    clock.increment(1);
    expect(actor.getSnapshot().value).toBe('mounting');
    await waitFor(actor, (snapshot) => snapshot.matches('mounted'));
  });
});

describe('cancellation', () => {
  it('waits for the effect in hand, and starts no other', async () => {
    const abort = new AbortController();
    let finish: () => void = () => undefined;
    const calls: string[] = [];
    const machine = createSnapshotMachine({
      unpackLayer: () => {
        calls.push('unpack');
        return new Promise<void>((resolve) => {
          finish = resolve;
        });
      },
      commitLayer: async () => {
        throw new Error('not to be called');
      },
      removeLayer: async () => undefined,
    });
    let isOver = false;
    const run = driveMachine(machine, { goal: build, observed: 'absent', retry }, { signal: abort.signal });
    const over = run.catch((error: unknown) => error).finally(() => (isOver = true));
    abort.abort();
    await new Promise((resolve) => setImmediate(resolve));
    expect(isOver).toBe(false);
    finish();
    expect(await over).toMatchObject({ code: 'cancelled' });
    expect(calls).toEqual(['unpack']);
  });

  it('ends backing off', async () => {
    const abort = new AbortController();
    const { mount } = scripted({ mount: [busy] });
    const clock = new SimulatedClock();
    const run = driveMachine(
      mount,
      { goal: show, retry },
      { signal: abort.signal, clock, onRetry: () => abort.abort() },
    );
    await expect(run).rejects.toMatchObject({ code: 'cancelled' });
  });

  it('starts nothing when it came first', async () => {
    const { mount, calls } = scripted({});
    await expect(
      driveMachine(mount, { goal: show, retry }, { signal: AbortSignal.abort() }),
    ).rejects.toMatchObject({ code: 'cancelled' });
    expect(calls).toEqual([]);
  });
});
