import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { chain, expectEmpty, image, mount, openWorld, type World } from './support.ts';

const signal = new AbortController().signal;
const APP = [image('app'), chain('app'), mount('app')];
const TOOLS = [image('tools'), chain('tools'), mount('tools')];
const source = (id: string, resources: typeof APP, prune = true) => ({
  id,
  revision: `${id}@1`,
  resources,
  prune,
});
let world: World;
beforeEach(() => {
  world = openWorld();
  world.images.set('app', 'ab').set('tools', 'ac');
});
afterEach(() => world.close());

const plan = async (...sources: ReturnType<typeof source>[]) => world.engine.plan({ sources }, signal);
const apply = async (...sources: ReturnType<typeof source>[]) =>
  world.engine.apply(await plan(...sources), { signal });

describe('several sources in one plan', () => {
  it('record each resource with its own source and revision', async () => {
    expect((await apply(source('a', APP), source('b', TOOLS))).failed).toEqual([]);
    const of = (key: 'Mount/app' | 'Mount/tools') => world.state.resource(key);
    expect(of('Mount/app')).toMatchObject({ sourceId: 'a', appliedRevision: 'a@1' });
    expect(of('Mount/tools')).toMatchObject({ sourceId: 'b', appliedRevision: 'b@1' });
    expectEmpty((await plan(source('a', APP), source('b', TOOLS))).plan);
  });

  it('prune each what it declared itself, and only where that is wanted', async () => {
    await apply(source('a', APP), source('b', TOOLS));
    const kept = await plan(source('a', [], false), source('b', TOOLS));
    expectEmpty(kept.plan);
    const pruned = await plan(source('a', []), source('b', TOOLS));
    const gone = pruned.plan.actions.filter(({ kind }) => kind !== 'Snapshot' && kind !== 'Merge');
    expect(gone.map(({ id, verb }) => `${verb} ${id}`)).toEqual([
      'delete Mount/app',
      'delete LayerChain/app',
      'delete Image/app',
    ]);
    expectEmpty((await plan(source('b', TOOLS))).plan);
  });
});

describe('what is held back', () => {
  it('gets no action, nor does what depends on it, and is said to be blocked', async () => {
    const held = new Map([['Image/app', { code: 'unavailable', message: 'registry is down' }] as const]);
    const { plan } = await world.engine.plan({ sources: [source('a', [...APP, ...TOOLS])], held }, signal);
    expect(plan.blocked.map(({ key, code }) => `${key} ${code}`)).toEqual([
      'Image/app unavailable',
      'LayerChain/app dependency',
      'Mount/app dependency',
    ]);
    expect(plan.actions.map(({ id }) => id)).toContain('Mount/tools');
    expect(plan.actions.map(({ id }) => id)).not.toContain('Mount/app');
  });
});

describe('what is suspended on this host', () => {
  it('stays as it is, whatever becomes of its manifest, until it is resumed', async () => {
    await apply(source('a', APP));
    world.state.suspend({ key: 'Mount/app', reason: 'looking into it', by: 'ann' });
    const moved = [image('app'), chain('app'), mount('app', { path: '/mnt/moved' })];
    const changed = (await plan(source('a', moved))).plan;
    expectEmpty(changed);
    expect(changed.blocked[0]).toMatchObject({
      key: 'Mount/app',
      code: 'suspended',
      message: expect.stringMatching(/^suspended by ann since 20.*: looking into it$/),
      hint: 'to go on: cimlet resume Mount/app',
    });
    const left = (await plan(source('a', [image('app'), chain('app')]))).plan;
    expectEmpty(left);
    expect(left.notes[0]?.message).toContain('it is suspended');
    expect([world.state.resume('Mount/app', 'ann'), world.state.resume('Mount/app', 'ann')]).toEqual([
      true,
      false,
    ]);
    expect((await plan(source('a', moved))).plan.actions.map(({ id }) => id)).toEqual(['Mount/app']);
  });
});
