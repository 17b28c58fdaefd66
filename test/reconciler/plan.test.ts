import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CimletError } from '../../src/errors.ts';
import type { HostState } from '../../src/hosts/host.ts';
import { mountVolumeGuid } from '../../src/hosts/identity.ts';
import type { Resource } from '../../src/manifests/resources.ts';
import { planApply } from '../../src/reconciler/plan.ts';
import type { Plan, PlannedAction } from '../../src/reconciler/types.ts';
import {
  chain,
  expectEmpty,
  image,
  mount,
  openWorld,
  requestOf,
  resolvedImage,
  type World,
} from './support.ts';

let world: World;
beforeEach(() => {
  world = openWorld();
  world.images.set('app', 'ab');
});
afterEach(() => world.close());

const APP = [image('app'), chain('app'), mount('app')];

function lines(plan: Plan): string[] {
  return plan.actions.map(({ id, verb, drift, reasons }) => {
    const what = id.replace(/^Snapshot\/(\w+)\/sha256:\w+(\w{4})$/, 'Snapshot/$1/$2');
    return `${verb}${drift ? '!' : ''} ${what}: ${reasons.map(({ code }) => code).join(',')}`;
  });
}

function topOf(plan: Plan): PlannedAction {
  return plan.actions.filter(({ kind }) => kind === 'Snapshot').at(-1)!;
}

describe('planning an apply', () => {
  it('creates image, layers base first, chain, mount', async () => {
    const plan = await world.plan(APP);
    expect(lines(plan).map((line) => line.replace(/\w{4}:/, ':'))).toEqual([
      'create Image/app: new',
      expect.stringMatching(/^create Snapshot\/ForkedCIM/),
      expect.stringMatching(/^create Snapshot\/ForkedCIM/),
      'create LayerChain/app: new',
      'create Mount/app: new',
    ]);
    expect(plan.summary).toMatchObject({ create: 5, drift: 0, blocked: 0, unchanged: 0, bytes: 200 });
    await expect(
      `${JSON.stringify(plan, undefined, 2).replaceAll(/"file": "\/[^"]*"/g, '"file": "BLOB"')}\n`,
    ).toMatchFileSnapshot('golden/create.json');
  });

  it('is the same whatever the order of the manifests', async () => {
    const more = [...APP, image('other'), mount('direct', { image: 'other' })];
    world.images.set('other', 'ac');
    const plan = await world.plan(more);
    expect(await world.plan([...more].reverse())).toEqual(plan);
    expect(plan.actions.filter(({ kind }) => kind === 'Snapshot')).toHaveLength(3);
  });

  it('is empty after applying', async () => {
    await world.apply(APP);
    const plan = await world.plan(APP);
    expectEmpty(plan);
    expect(plan.summary.unchanged).toBe(3);
  });

  const mountKey = mountVolumeGuid('app');
  const drifts: [string, (top: { chainId: never; format: 'ForkedCIM' }) => void, string[]][] = [
    ['an unmounted view', () => world.host.dropMount(mountKey), ['repair! Mount/app: unmounted']],
    [
      'a missing region file',
      (top) => world.host.damageLayer(top, { code: 'file-missing', message: 'region_0 is missing' }),
      ['repair! Snapshot: file-missing'],
    ],
    [
      'a file of another size',
      (top) => world.host.damageLayer(top, { code: 'file-size', message: 'region_0 has 1 byte' }),
      ['repair! Snapshot: file-size'],
    ],
    [
      'other code',
      (top) => world.host.damageLayer(top, { code: 'builder-changed', message: 'written by v0' }),
      ['replace Snapshot: builder-changed'],
    ],
    ['a layer gone altogether', (top) => world.host.dropLayer(top), ['repair! Snapshot: layer-missing']],
  ];
  it.each(drifts)('sees %s', async (_name, damage, expected) => {
    const first = await world.plan(APP);
    const { chainId } = (topOf(first).work as never as { request: { chainId: never } }).request;
    await world.apply(APP);
    damage({ chainId, format: 'ForkedCIM' });
    const plan = await world.plan(APP);
    expect(lines(plan).map((line) => line.replace(/Snapshot\/\S+:/, 'Snapshot:'))).toEqual(expected);
    await world.apply(APP);
    expectEmpty(await world.plan(APP));
  });

  it('rebuilds only the broken parent, its child stays', async () => {
    const [, base] = (await world.plan(APP)).actions;
    await world.apply(APP);
    world.host.dropLayer({ chainId: base!.name as never, format: 'ForkedCIM' });
    expect((await world.plan(APP)).actions.map(({ id }) => id)).toEqual([base!.id]);
    await world.apply(APP);
    expectEmpty(await world.plan(APP));
  });

  it('waits for a rebuilt grandparent even when the parent is whole', async () => {
    world.images.set('app', 'abc');
    const [, base] = (await world.plan([image('app'), chain('app')])).actions;
    await world.apply([image('app'), chain('app')]);
    world.host.dropLayer({ chainId: base!.name as never, format: 'ForkedCIM' });
    const plan = await world.plan(APP);
    const view = plan.actions.find(({ id }) => id === 'Mount/app');
    expect(view?.dependsOn).toEqual([base!.id]);
  });

  const changes: [string, () => Resource[], string[]][] = [
    [
      'another path',
      () => [APP[0]!, APP[1]!, mount('app', { path: '/mnt/elsewhere' })],
      ['replace Mount/app: path-changed'],
    ],
    [
      'another view',
      () => [APP[0]!, APP[1]!, mount('app', { view: 'Extracted' })],
      ['replace Mount/app: view-changed'],
    ],
    [
      'a field that changes nothing on the host',
      () => [APP[0]!, APP[1]!, mount('app', { driftPolicy: 'Report' })],
      ['change Mount/app: spec-changed'],
    ],
    [
      'a new image with the same base',
      () => {
        world.images.set('app', 'ac');
        return APP;
      },
      [
        'change Image/app: image-changed',
        'create Snapshot: needed-by',
        'replace LayerChain/app: image-changed',
        'replace Mount/app: layers-changed',
        'delete Snapshot: unreferenced',
      ],
    ],
    ['a removed mount', () => APP.slice(0, 2), ['delete Mount/app: removed-from-manifests']],
    [
      'everything removed',
      () => [],
      [
        'delete Mount/app: removed-from-manifests',
        'delete LayerChain/app: removed-from-manifests',
        'delete Image/app: removed-from-manifests',
        'delete Snapshot: unreferenced',
        'delete Snapshot: unreferenced',
      ],
    ],
  ];
  it.each(changes)('plans %s', async (_name, change, expected) => {
    await world.apply(APP);
    const desired = change();
    const plan = await world.plan(desired);
    expect(lines(plan).map((line) => line.replace(/Snapshot\/\S+:/, 'Snapshot:'))).toEqual(expected);
    const result = await world.apply(desired);
    expect(result.failed).toEqual([]);
    expectEmpty(await world.plan(desired));
  });

  it('removes children before parents, and both after the view', async () => {
    await world.apply(APP);
    const plan = await world.plan([]);
    const snapshots = plan.actions.filter(({ kind }) => kind === 'Snapshot');
    expect(snapshots[0]?.dependsOn).toContain('Mount/app');
    expect(snapshots[1]?.dependsOn).toEqual([snapshots[0]?.id]);
  });

  it('deletes nothing without pruning, of another source, or against an annotation or policy', async () => {
    await world.apply(APP);
    expectEmpty(await world.plan([], { prune: false }));
    expectEmpty(await world.plan([], { id: 'elsewhere' }));
    const kept = mount('app');
    kept.metadata.annotations = { 'cimlet.dev/prune': 'disabled' };
    await world.apply([APP[0]!, APP[1]!, kept]);
    const plan = await world.plan([]);
    expectEmpty(plan);
    expect(plan.notes.map(({ key }) => key)).toEqual(['Image/app', 'LayerChain/app', 'Mount/app']);
    await world.apply([APP[0]!, APP[1]!, mount('app', { deletionPolicy: 'Orphan' })]);
    expect((await world.plan([])).notes.map(({ message }) => message)).toContain(
      'kept on the host: deletionPolicy is Orphan',
    );
  });

  it('lets a mount take over the path of one that is pruned or moves away', async () => {
    await world.apply(APP);
    const taken = [APP[0]!, APP[1]!, mount('next', { chain: 'app', path: '/mnt/app' })];
    const pruning = await world.plan(taken);
    expect(pruning.actions.find(({ id }) => id === 'Mount/next')?.dependsOn).toEqual(['Mount/app']);
    await world.apply([...taken, mount('app', { path: '/mnt/moved' })]);
    expectEmpty(await world.plan([...taken, mount('app', { path: '/mnt/moved' })]));
  });

  it('blocks mounts that trade places, and one whose place is kept', async () => {
    const two = [APP[0]!, APP[1]!, mount('one', { chain: 'app' }), mount('two', { chain: 'app' })];
    await world.apply(two);
    const swapped = await world.plan([
      APP[0]!,
      APP[1]!,
      mount('one', { chain: 'app', path: '/mnt/two' }),
      mount('two', { chain: 'app', path: '/mnt/one' }),
    ]);
    expect(swapped.blocked.map(({ key, code }) => `${key} ${code}`)).toEqual([
      'Mount/one already-exists',
      'Mount/two already-exists',
    ]);
    const kept = await world.plan([APP[0]!, APP[1]!, mount('three', { chain: 'app', path: '/mnt/one' })], {
      id: 'elsewhere',
    });
    expect(kept.blocked[0]?.message).toBe('/mnt/one shows Mount/one');
  });

  it('blocks a whole row of mounts at once whose last one has nowhere to go', async () => {
    const row = (shift: number) =>
      Array.from({ length: 400 }, (_, index) =>
        mount(`m${index}`, { chain: 'app', path: `/mnt/${index + shift}` }),
      );
    await world.apply([APP[0]!, APP[1]!, ...row(0)]);
    world.host.placeAt('/mnt/400', { kind: 'file' });
    let observations = 0;
    const planned = await world.engine.plan(
      requestOf([APP[0]!, APP[1]!, ...row(1)], { revision: 'r2' }),
      new AbortController().signal,
    );
    const observed = {
      ...planned.observed,
      get capabilities() {
        observations++;
        return planned.observed.capabilities;
      },
    };
    const records = world.state.records();
    const resolved = new Map([['app', resolvedImage('ab')]]);
    planApply({ sources: planned.sources, resolved, observed, records, root: '/' });
    expect(planned.plan.blocked).toHaveLength(400);
    // Some per mount, not some per mount for each mount.
    expect(observations).toBeLessThan(400 * 20);
  });

  it('keeps to targets and what they need', async () => {
    world.images.set('other', 'xy');
    const all = [...APP, image('other'), chain('other'), mount('other')];
    const plan = await world.plan(all, { targets: ['LayerChain/other'] });
    expect(plan.actions.filter(({ kind }) => kind !== 'Snapshot').map(({ id }) => id)).toEqual([
      'Image/other',
      'LayerChain/other',
    ]);
    await expect(world.plan(all, { targets: ['Mount/none'] })).rejects.toThrow(/target Mount\/none/);
  });

  it('reports drift instead of repairing it where driftPolicy says so', async () => {
    const quiet = [
      image('app'),
      chain('app', ['app'], { driftPolicy: 'Report' }),
      mount('app', { driftPolicy: 'Report' }),
    ];
    const top = topOf(await world.plan(quiet));
    await world.apply(quiet);
    world.host.dropMount(mountKey);
    world.host.damageLayer(
      { chainId: top.name as never, format: 'ForkedCIM' },
      { code: 'file-missing', message: 'region_0 is missing' },
    );
    const plan = await world.plan(quiet);
    expectEmpty(plan);
    expect(plan.notes.map(({ key }) => key)).toEqual(['LayerChain/app', 'Mount/app']);
  });

  it('keeps the layers of snapshots with names, and removes them once the names are gone', async () => {
    await world.apply(APP);
    const [facts] = world.state.records().resources.flatMap(({ facts }) => facts.chain ?? []);
    const { format, chainIds } = facts!;
    const base = chainIds.slice(0, 1);
    world.state.names.put({
      name: 'keep',
      kind: 'committed',
      format,
      chain: base,
      labels: {},
      state: 'ready',
    });
    await world.apply([]);
    expect(world.state.records().snapshots.map(({ chainId }) => chainId)).toEqual(base);
    expectEmpty(await world.plan([]));
    world.state.names.forget('keep');
    expect(lines(await world.plan([]))).toEqual([expect.stringMatching(/^delete .*: unreferenced$/)]);
  });
});

describe('what blocks', () => {
  const linux = (): Resource[] => {
    world.os = 'linux';
    return [image('app'), chain('app', ['app'], { format: 'ForkedCIM' })];
  };
  const place = (kind: HostState['paths'][string]['kind']): Resource[] => {
    world.host.placeAt('/mnt/app', { kind, detail: 'there before' });
    return APP;
  };
  const missing = (): Resource[] => {
    world.images.delete('app');
    return APP;
  };
  const cases: [string, () => Resource[], string, string, RegExp][] = [
    [
      'dependants of one blocked',
      missing,
      'Mount/app',
      'dependency',
      /needs LayerChain\/app, which is blocked/,
    ],
    [
      'a suspended resource',
      () => [image('app', { suspend: { reason: 'moving house', by: 'ann' } }), chain('app')],
      'Image/app',
      'suspended',
      /suspended by ann: moving house/,
    ],
    [
      'what needs a suspended one',
      () => [image('app', { suspend: true }), chain('app')],
      'LayerChain/app',
      'suspended',
      /Image\/app/,
    ],
    ['an image that is not there', () => [image('none')], 'Image/none', 'not-found', /no such layout/],
    [
      'a Linux image as a CIM',
      linux,
      'LayerChain/app',
      'invalid-manifest',
      /CIM formats hold Windows layers.*LCOW/,
    ],
    [
      'a Linux image',
      () => [linux()[0]!, mount('app', { image: 'app' })],
      'Mount/app',
      'unsupported-host',
      /can't write LCOW layers: not supported/,
    ],
    [
      'a format the host lacks',
      () => [image('app'), chain('app', ['app'], { format: 'WCIFS' })],
      'LayerChain/app',
      'unsupported-host',
      /WCIFS/,
    ],
    [
      'a directory with files',
      () => place('directory'),
      'Mount/app',
      'already-exists',
      /a directory that is not empty at \/mnt\/app \(there before\)/,
    ],
    ['a file', () => place('file'), 'Mount/app', 'already-exists', /a file/],
    ['a symlink', () => place('symlink'), 'Mount/app', 'already-exists', /a symbolic link/],
    ['a foreign mount', () => place('foreign-mount'), 'Mount/app', 'already-exists', /cimlet did not make/],
    [
      'a relative path',
      () => [...APP.slice(0, 2), mount('app', { path: 'mnt' })],
      'Mount/app',
      'invalid-manifest',
      /absolute/,
    ],
    [
      'a path in the root',
      () => [...APP.slice(0, 2), mount('app', { path: '/memory/x' })],
      'Mount/app',
      'invalid-manifest',
      /inside the root/,
    ],
    [
      'a path above the root',
      () => [...APP.slice(0, 2), mount('app', { path: '/' })],
      'Mount/app',
      'invalid-manifest',
      /holds the root/,
    ],
    [
      'one path twice',
      () => [...APP, mount('zwo', { chain: 'app', path: '/mnt/app/' })],
      'Mount/zwo',
      'invalid-manifest',
      /Mount\/app \(app.yaml:1\)/,
    ],
    [
      'nested paths',
      () => [...APP, mount('zwo', { chain: 'app', path: '/mnt/app/sub' })],
      'Mount/app',
      'invalid-manifest',
      /inside one another/,
    ],
    [
      'a cycle',
      () => [image('app', { dependsOn: [{ kind: 'Mount', name: 'app' }] }), chain('app'), mount('app')],
      'Mount/app',
      'invalid-manifest',
      /depends on itself/,
    ],
  ];
  it.each(cases)('%s', async (_name, make, key, code, message) => {
    const plan = await world.plan(make());
    const found = plan.blocked.find((entry) => entry.key === key);
    expect(found).toMatchObject({ code, message: expect.stringMatching(message) });
    expect(found?.position?.file).toBe('app.yaml');
    expect(plan.actions.map(({ id }) => id)).not.toContain(key);
  });

  it('protects what a blocked resource uses', async () => {
    await world.apply(APP);
    expectEmpty(await world.plan([image('app', { suspend: true }), ...APP.slice(1)]));
  });

  it('falls back to an extracted view and says why; an explicit Kernel view stalls', async () => {
    world.close();
    world = openWorld({ capabilities: { 'view.Kernel': { available: false, reason: 'no privilege' } } });
    world.images.set('app', 'ab');
    const plan = await world.plan(APP);
    expect(plan.notes).toEqual([
      { key: 'Mount/app', message: expect.stringMatching(/view Extracted, since .* no privilege/) },
    ]);
    const asked = await world.plan([...APP.slice(0, 2), mount('app', { view: 'Kernel' })]);
    expect(asked.blocked[0]).toMatchObject({ key: 'Mount/app', code: 'unsupported-host' });
  });
});

describe('planning a deletion', () => {
  it('takes mounts first, layers last, and keeps what others need', async () => {
    world.images.set('other', 'ac');
    await world.apply([...APP, image('other'), mount('other', { image: 'other' })]);
    const result = await world.remove('Image/app', 'LayerChain/app', 'Mount/app');
    expect(result).toMatchObject({ failed: [], skipped: [] });
    expect(
      world.host
        .effects()
        .slice(-2)
        .map(({ method }) => method),
    ).toEqual(['dismount', 'removeLayer']);
    expectEmpty(await world.plan([image('other'), mount('other', { image: 'other' })]));
    await world.remove('Image/other');
    expect(world.state.resource('Image/other')).toBeDefined();
    await world.remove('Image/other', 'Mount/other');
    const { layers, mounts } = await world.host.observe({ signal: new AbortController().signal });
    expect({ layers, mounts }).toEqual({ layers: [], mounts: [] });
    expect(world.state.records()).toEqual({ resources: [], snapshots: [], mounts: [], names: [] });
  });
});

describe('planning without a host or without records', () => {
  it('plans offline from manifests alone', () => {
    const plan = planApply({
      ...requestOf(APP),
      resolved: new Map([['app', resolvedImage('ab')]]),
      observed: undefined,
      records: undefined,
      root: '/root',
    });
    expect(plan.summary).toMatchObject({ create: 6, blocked: 0 });
    expect(plan.notes).toEqual([
      { key: 'LayerChain/app', message: 'format BlockCIM assumed: the host chooses it' },
    ]);
    expect(plan.host).toEqual({ kind: 'offline', root: '/root' });
  });

  it('takes what an observation shows as applied', async () => {
    await world.apply(APP);
    const observed = await world.host.observe({ signal: new AbortController().signal });
    const plan = (resources: Resource[]) =>
      planApply({
        ...requestOf(resources),
        resolved: new Map([['app', resolvedImage('ab')]]),
        observed,
        records: undefined,
        root: '/root',
      });
    expectEmpty(plan(APP));
    expect(plan([APP[0]!, APP[1]!, mount('app', { path: '/mnt/b' })]).actions.map(({ id }) => id)).toEqual([
      'Mount/app',
    ]);
  });

  it('blocks an Image with the error of its source', () => {
    const plan = planApply({
      ...requestOf(APP),
      resolved: new Map([['app', new CimletError('corrupt', 'bad digest', { hint: 'copy it again' })]]),
      observed: undefined,
      records: undefined,
      root: '/root',
    });
    expect(plan.blocked.map(({ key, code }) => `${key} ${code}`)).toEqual([
      'Image/app corrupt',
      'LayerChain/app dependency',
      'Mount/app dependency',
    ]);
    expect(plan.blocked[0]?.hint).toBe('copy it again');
  });
});

describe('size', () => {
  it('plans 10,000 resources', () => {
    const resources: Resource[] = [];
    const resolved = new Map<string, ReturnType<typeof resolvedImage>>();
    for (let index = 0; index < 2500; index++) {
      const name = `n${index}`;
      resources.push(image(name), chain(name), mount(name), mount(`${name}b`, { chain: name }));
      resolved.set(name, resolvedImage(`a${String.fromCodePoint(0x4e00 + index)}`));
    }
    const plan = planApply({
      ...requestOf(resources),
      resolved,
      observed: undefined,
      records: { resources: [], snapshots: [], mounts: [], names: [] },
      root: '/root',
    });
    expect(plan.summary).toMatchObject({ create: 10_000 + 2501 + 2500, blocked: 0 });
  });
});
