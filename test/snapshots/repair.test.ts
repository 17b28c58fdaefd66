/** The process is killed at every call a snapshotter makes of its host; the next one finishes or undoes what was begun. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CimletError } from '../../src/errors.ts';
import { type EffectName, MemoryHost, SNAPSHOT_CAPABILITIES } from '../../src/hosts/memory/memory-host.ts';
import { Snapshotter } from '../../src/snapshots/snapshotter.ts';
import { openState, type State } from '../../src/state/state.ts';

const context = { signal: new AbortController().signal };

let root: string;
let state: State;
let death: { method: EffectName; stage: 'before' | 'after' } | undefined;
let isDead: boolean;
/** Fails once it is done. */
let fails: EffectName | undefined;
let host: MemoryHost;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'cimlet-repair-'));
  state = openState(root, { readOnly: false });
  isDead = false;
  fails = undefined;
  host = new MemoryHost({
    capabilities: SNAPSHOT_CAPABILITIES,
    onCall: ({ method }, stage) => {
      if (method === death?.method && stage === death.stage) {
        isDead = true;
        state.close();
      }
      if (isDead) throw new Error('killed');
      if (method === fails && stage === 'after') throw new Error('no answer');
    },
  });
});
afterEach(() => {
  if (!isDead) state.close();
  rmSync(root, { recursive: true });
});

async function killedAt(
  method: EffectName,
  stage: 'before' | 'after',
  act: () => Promise<unknown>,
): Promise<void> {
  death = { method, stage };
  await expect(act()).rejects.toThrow();
  death = undefined;
  expect(isDead).toBe(true);
}

async function restart(): Promise<Snapshotter> {
  isDead = false;
  state = openState(root, { readOnly: false });
  const snapshotter = new Snapshotter(host, state);
  await snapshotter.repair(context);
  expect(snapshotter.walk().every((each) => each.state === 'ready')).toBe(true);
  return snapshotter;
}

const format = 'ForkedCIM';

describe('a snapshotter killed', () => {
  it.each(['before', 'after'] as const)('%s preparing', async (stage) => {
    const act = () => new Snapshotter(host, state).prepare('a', undefined, { format }, context);
    await killedAt('prepareSnapshot', stage, act);
    const next = await restart();
    expect(next.walk().map(({ name }) => name)).toEqual(stage === 'after' ? ['a'] : []);
    if (stage === 'before') await next.prepare('a', undefined, { format }, context);
    await next.commit('base', 'a', {}, context);
  });

  it.each(['before', 'after'] as const)('%s committing', async (stage) => {
    const snapshotter = new Snapshotter(host, state);
    await snapshotter.prepare('a', undefined, { format }, context);
    await killedAt('commitSnapshot', stage, () => snapshotter.commit('base', 'a', {}, context));
    const next = await restart();
    expect(next.walk().map(({ name }) => name)).toEqual([stage === 'after' ? 'base' : 'a']);
    if (stage === 'before') await next.commit('base', 'a', {}, context);
    const { layers, snapshots } = await host.observe(context);
    expect([layers.map(({ chainId }) => chainId), snapshots]).toEqual([next.stat('base').chain, []]);
    await next.prepare('b', 'base', {}, context);
  });

  it.each(['before', 'after'] as const)('%s removing an active one', async (stage) => {
    const snapshotter = new Snapshotter(host, state);
    await snapshotter.prepare('a', undefined, { format }, context);
    await killedAt('removeSnapshot', stage, () => snapshotter.remove('a', context));
    const next = await restart();
    expect([next.walk(), (await host.observe(context)).snapshots]).toEqual([[], []]);
  });

  it.each(['before', 'after'] as const)('%s removing a committed one', async (stage) => {
    const snapshotter = new Snapshotter(host, state);
    await snapshotter.prepare('a', undefined, { format }, context);
    await snapshotter.commit('base', 'a', {}, context);
    await killedAt('removeLayer', stage, () => snapshotter.remove('base', context));
    const next = await restart();
    expect([next.walk(), (await host.observe(context)).layers]).toEqual([[], []]);
  });
});

describe('one snapshot that cannot be repaired', () => {
  it('is warned of, and nobody gets it or its name; others are as before', async () => {
    const snapshotter = new Snapshotter(host, state);
    for (const name of ['a', 'b']) await snapshotter.prepare(name, undefined, { format }, context);
    await killedAt('removeSnapshot', 'before', () => snapshotter.remove('a', context));
    isDead = false;
    state = openState(root, { readOnly: false });
    host.failNext('removeSnapshot', new CimletError('busy', 'a is mounted somewhere'));
    const next = new Snapshotter(host, state);
    const warnings: string[] = [];
    await next.repair({ ...context, warn: (message) => warnings.push(message) });
    expect(warnings).toEqual([expect.stringMatching(/"a".*removing.*mounted somewhere/)]);
    const busy = { code: 'busy' };
    await expect(next.prepare('a', undefined, { format }, context)).rejects.toMatchObject(busy);
    await expect(next.commit('base', 'a', {}, context)).rejects.toMatchObject(busy);
    await expect(next.prepare('c', 'a', {}, context)).rejects.toMatchObject(busy);
    await next.commit('base', 'b', {}, context);
    await next.prepare('c', 'base', {}, context);

    expect((await restart()).walk().map(({ name }) => name)).toEqual(['base', 'c']);
  });

  it('keeps the name of what it was committed from, too', async () => {
    const snapshotter = new Snapshotter(host, state);
    await snapshotter.prepare('a', undefined, { format }, context);
    await killedAt('commitSnapshot', 'after', () => snapshotter.commit('base', 'a', {}, context));
    isDead = false;
    state = openState(root, { readOnly: false });
    host.failNext('removeSnapshot', new CimletError('busy', 'a is mounted somewhere'));
    const next = new Snapshotter(host, state);
    await next.repair(context);
    for (const name of ['a', 'base'])
      await expect(next.prepare(name, undefined, { format }, context)).rejects.toMatchObject({
        code: 'busy',
      });
    expect((await restart()).walk().map(({ name }) => name)).toEqual(['base']);
  });
});

describe('a snapshotter', () => {
  it('keeps a layer for as long as another name stands for it', async () => {
    const snapshotter = new Snapshotter(host, state);
    for (const name of ['one', 'two']) {
      await snapshotter.prepare('active', undefined, { format }, context);
      await snapshotter.commit(name, 'active', {}, context);
    }
    await snapshotter.remove('one', context);
    expect((await host.observe(context)).layers).toHaveLength(1);
    await snapshotter.remove('two', context);
    expect((await host.observe(context)).layers).toHaveLength(0);
  });

  it('leaves no trace of what could not be prepared', async () => {
    const snapshotter = new Snapshotter(host, state);
    host.failNext('prepareSnapshot', new Error('no'));
    await expect(snapshotter.prepare('a', undefined, { format }, context)).rejects.toThrow('no');
    expect(snapshotter.walk()).toEqual([]);
  });

  it('leaves what the host has already, after its state was lost', async () => {
    const snapshotter = new Snapshotter(host, state);
    await snapshotter.prepare('base', undefined, { format }, context);
    await snapshotter.commit('layer', 'base', {}, context);
    await snapshotter.prepare('a', 'layer', {}, context);
    state.names.forget('a');
    const { snapshots } = await host.observe(context);
    const again = snapshotter.prepare('a', undefined, { format }, context);
    await expect(again).rejects.toMatchObject({ code: 'already-exists' });
    expect(snapshotter.walk().map(({ name }) => name)).toEqual(['layer']);
    expect((await host.observe(context)).snapshots).toEqual(snapshots);
  });

  it('takes away what a host made before it failed', async () => {
    const snapshotter = new Snapshotter(host, state);
    fails = 'prepareSnapshot';
    await expect(snapshotter.prepare('a', undefined, { format }, context)).rejects.toThrow('no answer');
    expect([snapshotter.walk(), (await host.observe(context)).snapshots]).toEqual([[], []]);
  });
});
