/** Mounts in utility VMs, and what compute systems use, from manifests to plan. */

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { HostState, ObservedComputeSystem } from '../../src/hosts/host.ts';
import { mountVolumeGuid } from '../../src/hosts/identity.ts';
import { BLOCK_CAPABILITIES, SNAPSHOT_CAPABILITIES } from '../../src/hosts/memory/memory-host.ts';
import type { MountResource } from '../../src/manifests/resources.ts';
import { chain, expectEmpty, image, mount, openWorld, type World } from './support.ts';

const VM = { utilityVM: { id: 'vm' } };
const AVAILABLE = { available: true };

let world: World;
afterEach(() => world.close());

/** As it is asked for; the chain's block CIMs have footers. */
function inVm(spec: Partial<MountResource['spec']> = {}): MountResource {
  return mount('app', { path: 'C:\\c\\app', access: 'ReadWrite', isolation: VM, ...spec });
}

describe('a Mount in a utility VM', () => {
  const footed = chain('app', ['app'], { format: 'BlockCIM', vhdFooter: true });
  const open = (utilityVM = AVAILABLE) => {
    world = openWorld({ capabilities: { ...BLOCK_CAPABILITIES, ...SNAPSHOT_CAPABILITIES, utilityVM } });
    world.images.set('app', 'ab');
  };

  it('is planned with the VM and the path of its guest', async () => {
    open();
    const { actions, blocked } = await world.plan([image('app'), footed, inVm()]);
    expect(blocked).toEqual([]);
    expect(actions.at(-1)?.detail).toContain('C:\\c\\app in utility VM vm, ');
    expect(actions.at(-1)?.work).toMatchObject({
      do: 'mountView',
      request: { utilityVM: 'vm', path: 'C:\\c\\app', access: 'ReadWrite', view: 'Kernel' },
    });
  });

  it('shares its path with Mounts in other VMs and on the host, not with one in the same', async () => {
    open();
    const other = { ...inVm({ isolation: { utilityVM: { id: 'other' } } }), metadata: { name: 'other' } };
    const same = { ...inVm({ path: 'c:\\C\\app\\' }), metadata: { name: 'same' } };
    const withChain = (resource: MountResource) => ({
      ...resource,
      spec: { ...resource.spec, chain: 'app' },
    });
    const resources = [image('app'), footed, inVm(), withChain(other)];
    expect((await world.plan(resources)).blocked).toEqual([]);
    const { blocked } = await world.plan([...resources, withChain(same)]);
    expect(blocked.map(({ key }) => key).sort()).toEqual(['Mount/app', 'Mount/same']);
  });

  it.each<[string, Partial<MountResource['spec']>, RegExp]>([
    ['read-only', { access: 'ReadOnly' }, /under a scratch only/],
    ['extracted', { view: 'Extracted' }, /nothing is extracted/],
    ['at a relative path', { path: 'c\\app' }, /not an absolute path of the utility VM's guest/],
    ['at a path of another system', { path: '/run/app' }, /no path of a Windows guest/],
  ])('is blocked %s', async (_what, spec, message) => {
    open();
    const { blocked } = await world.plan([image('app'), footed, inVm(spec)]);
    expect(blocked).toMatchObject([{ key: 'Mount/app', message: expect.stringMatching(message) }]);
  });

  it('needs block CIMs with VHD footers, or Linux layers', async () => {
    open();
    const bare = await world.plan([image('app'), chain('app', ['app'], { format: 'BlockCIM' }), inVm()]);
    expect(bare.blocked[0]?.message).toMatch(/no VHD footer/);
    const forked = await world.plan([image('app'), chain('app', ['app'], { format: 'ForkedCIM' }), inVm()]);
    expect(forked.blocked[0]?.message).toMatch(/forked CIMs/);
  });

  it('is blocked with the reason of a host that has no utility VMs', async () => {
    const reason = 'there are none here';
    open({ available: false, reason } as typeof AVAILABLE);
    const { blocked } = await world.plan([image('app'), footed, inVm()]);
    expect(blocked).toMatchObject([{ code: 'unsupported-host', message: expect.stringContaining(reason) }]);
  });
});

describe('what a running compute system uses', () => {
  let uses: ObservedComputeSystem['uses'];
  beforeEach(async () => {
    world = openWorld();
    world.images.set('app', 'ab');
    await world.apply([image('app'), chain('app'), mount('app')]);
    uses = { layers: [], mounts: [], snapshots: [] };
    const observe = world.host.observe.bind(world.host);
    const running = [{ id: 'web', type: 'Container', uses }];
    world.host.observe = async (options): Promise<HostState> => ({
      ...(await observe(options)),
      computeSystems: { running },
    });
  });

  it('is not pruned: a mount with all it needs', async () => {
    uses.mounts.push(mountVolumeGuid('app'));
    const plan = await world.plan([]);
    expectEmpty(plan);
    expect(plan.notes).toContainEqual({ key: 'Mount/app', message: 'kept: compute system web uses it' });
  });

  it('is not pruned: a layer with those below it', async () => {
    const [base, top] = (await world.host.observe({ signal: new AbortController().signal })).layers;
    if (base === undefined || top === undefined) throw new Error('no layers');
    uses.layers.push({ chainId: base.chainId, format: base.format });
    const removed = (await world.plan([])).actions.filter(({ kind }) => kind === 'Snapshot');
    expect(removed.map(({ name }) => name)).toEqual([top.chainId]);
  });
});
