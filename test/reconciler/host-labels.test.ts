import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { explainElsewhere, splitByHost } from '../../src/reconciler/host-labels.ts';
import { chain, image, mount, openWorld, type World } from './support.ts';

const forRole = (role: string) => ({ hosts: { matchLabels: { role } } });

describe('matchLabels', () => {
  const split = (matchLabels: Record<string, string>, labels: Record<string, string>) =>
    splitByHost([image('a', { hosts: { matchLabels } })], labels).here.length;

  it.each([
    ['all of them', { role: 'web', zone: 'a' }, { role: 'web', zone: 'a', more: 'x' }, 1],
    ['one is missing', { role: 'web', zone: 'a' }, { role: 'web' }, 0],
    ['one differs', { role: 'web' }, { role: 'Web' }, 0],
    ['none are asked for', {}, {}, 1],
    ['what every object has is no label', { constructor: 'x' }, {}, 0],
  ])('%s', (_, wanted, labels, expected) => {
    expect(split(wanted, labels)).toBe(expected);
  });
});

describe('what is for other hosts', () => {
  let world: World;
  beforeEach(() => {
    world = openWorld();
    world.images.set('app', 'ab').set('base', 'xy');
  });
  afterEach(() => world.close());

  it('is not made, and goes when it is here; plan says why', async () => {
    const all = [image('app'), mount('app', { image: 'app', path: '/mnt/app', ...forRole('web') })];
    await world.apply(all);
    expect(world.host.viewAt('/mnt/app')).toBeDefined();
    const { here, elsewhere } = splitByHost(all, { role: 'db' });
    const plan = await world.plan(here, { elsewhere });
    expect(plan.actions.map(({ verb }) => verb)).toEqual(['delete', 'delete', 'delete']);
    expect(plan.notes).toMatchObject([
      { key: 'Mount/app', message: 'not for this host: spec.hosts wants role=web' },
    ]);
    await world.apply(here, { elsewhere });
    expect(world.host.viewAt('/mnt/app')).toBeUndefined();
    expect(world.state.resource('Mount/app')).toBeUndefined();
  });

  it('blocks what needs it here, and says so', async () => {
    const other = image('app', forRole('web'));
    const plan = await world.plan([chain('app')], { elsewhere: [other] });
    expect(plan.blocked).toMatchObject([
      { key: 'LayerChain/app', message: `it needs Image/app, which is ${explainElsewhere(other)}` },
    ]);
  });
});
