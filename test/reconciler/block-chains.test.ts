/** Chains of block CIMs: formats, merging, seals, footers, archives, sharing; from plan to host and back. */

import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MAX_MERGED_LAYERS as MERGED_BY_CIM } from '../../src/cim/merge.ts';
import { CimletError } from '../../src/errors.ts';
import {
  type ChainId,
  type HostState,
  type LayerRef,
  MAX_MERGED_LAYERS,
  type MergeFault,
} from '../../src/hosts/host.ts';
import { BLOCK_CAPABILITIES, type EffectName } from '../../src/hosts/memory/memory-host.ts';
import type { LayerChainResource, MountResource, Resource } from '../../src/manifests/resources.ts';
import { planApply } from '../../src/reconciler/plan.ts';
import type { Plan } from '../../src/reconciler/types.ts';
import { TarWriter } from '../../src/tar/tar-writer.ts';
import {
  chain,
  digest,
  expectEmpty,
  expectValidRecords,
  image,
  mount,
  openWorld,
  requestOf,
  resolvedImage,
  type World,
} from './support.ts';

let world: World;
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cimlet-chains-'));
  world = openWorld({ capabilities: BLOCK_CAPABILITIES });
  world.images.set('app', 'abc');
});
afterEach(() => {
  if (!world.isDead) expectValidRecords(world.state);
  world.close();
  rmSync(folder, { recursive: true });
});

const signal = new AbortController().signal;
const LAYERS_129 = Array.from({ length: 129 }, (_, index) => String.fromCodePoint(0x4e00 + index)).join('');
const APP = [image('app'), chain('app'), mount('app')];

type ChainSpec = Partial<LayerChainResource['spec']>;
type MountSpec = Partial<MountResource['spec']>;

function app(spec: ChainSpec = {}, view: MountSpec = {}): Resource[] {
  return [image('app'), chain('app', ['app'], spec), mount('app', view)];
}

function observe(): Promise<HostState> {
  return world.host.observe({ signal });
}

/** Snapshots and merged CIMs named by the number of their layers. */
function lines(plan: Plan): string[] {
  const depths = new Map<string, number>();
  for (const { work } of plan.actions) {
    if (work.do === 'buildLayer') depths.set(work.request.chainId, work.request.parents.length + 1);
    if (work.do === 'mergeChain') depths.set(work.request.chain.at(-1) ?? '', work.request.chain.length);
  }
  return plan.actions.map(({ id, kind, name, verb, drift, reasons }) => {
    const what = kind === 'Snapshot' || kind === 'Merge' ? `${kind}/${depths.get(name) ?? '?'}` : id;
    return `${verb}${drift ? '!' : ''} ${what}: ${reasons.map(({ code }) => code).join(',')}`;
  });
}

async function topOf(resources: Resource[]): Promise<LayerRef> {
  const plan = await world.plan(resources);
  const snapshots = plan.actions.filter(({ kind }) => kind === 'Snapshot');
  return { chainId: snapshots.at(-1)?.name as ChainId, format: 'BlockCIM' };
}

describe('a chain in block format', () => {
  it('is chosen where it can be written, merged and mounted; merged; and recorded', async () => {
    const plan = await world.plan(APP);
    expect(lines(plan)).toEqual([
      'create Image/app: new',
      'create Snapshot/1: needed-by',
      'create Snapshot/2: needed-by',
      'create Snapshot/3: needed-by',
      'create Merge/3: needed-by',
      'create LayerChain/app: new',
      'create Mount/app: new',
    ]);
    await expect(
      `${JSON.stringify(plan, undefined, 2).replaceAll(/"file": "\/[^"]*"/g, '"file": "BLOB"')}\n`,
    ).toMatchFileSnapshot('golden/create-block.json');
    expect((await world.apply(APP)).failed).toEqual([]);
    expectEmpty(await world.plan(APP));
    expect(world.state.resource('LayerChain/app')?.facts.chain).toMatchObject({
      format: 'BlockCIM',
      merged: true,
    });
    expect(world.host.viewAt('/mnt/app')?.size).toBe(3);
    expect((await observe()).merges).toMatchObject([{ format: 'BlockCIM', faults: [] }]);
  });

  it('of one layer is not merged', async () => {
    world.images.set('app', 'a');
    await world.apply(APP);
    expectEmpty(await world.plan(APP));
    expect((await observe()).merges).toEqual([]);
  });

  it('keeps the format it was made with when the host learns another', async () => {
    world.close();
    world = openWorld();
    world.images.set('app', 'abc');
    await world.apply(APP);
    const forked = await observe();
    const capabilities = { ...forked.capabilities, ...BLOCK_CAPABILITIES };
    const plan = planApply({
      ...requestOf(APP),
      resolved: new Map([['app', resolvedImage('abc')]]),
      observed: { ...forked, capabilities },
      records: world.state.records(),
      root: '/memory',
    });
    expectEmpty(plan);
  });

  it('falls back to forked CIMs where chains can not be merged', async () => {
    world.close();
    world = openWorld({
      capabilities: { ...BLOCK_CAPABILITIES, merge: { available: false, reason: 'no merging here' } },
    });
    world.images.set('app', 'ab');
    world.images.set('single', 'a');
    const plan = await world.plan([...APP, image('single'), chain('single')]);
    const formats = plan.actions.map(({ work }) => (work.do === 'recordChain' ? work.format : ''));
    expect(formats.filter((format) => format !== '').sort()).toEqual(['BlockCIM', 'ForkedCIM']);
  });

  it('is not chosen for more layers than can be merged, which are planned where nothing is merged', async () => {
    expect(MAX_MERGED_LAYERS).toBe(MERGED_BY_CIM);
    world.images.set('app', LAYERS_129);
    const formatOf = (plan: Plan) =>
      plan.actions.flatMap(({ work }) => (work.do === 'recordChain' ? [work.format] : []));
    expect(formatOf(await world.plan(APP))).toEqual(['ForkedCIM']);
    const unmerged = [image('app'), chain('app', ['app'], { format: 'BlockCIM', merge: false })];
    expect(formatOf(await world.plan(unmerged))).toEqual(['BlockCIM']);
  });

  it('serves a Mount that names an image as well, once for all that share it', async () => {
    const views = [mount('one', { image: 'app' }), mount('two', { image: 'app' })];
    const resources = [...APP, ...views];
    await world.apply(resources);
    expectEmpty(await world.plan(resources));
    expect(world.host.effects().filter(({ method }) => method === 'mergeChain')).toHaveLength(1);
    await world.apply(views.concat(image('app') as never));
    expect((await observe()).merges).toHaveLength(1);
    await world.apply([]);
    expect(await observe()).toMatchObject({ merges: [], layers: [], mounts: [] });
  });

  it('takes several images, and shares lower layers with another chain', async () => {
    world.images.set('app', 'ab');
    world.images.set('tools', 't');
    const two = [image('app'), image('tools'), chain('app'), chain('both', ['app', 'tools']), mount('both')];
    await world.apply(two);
    expectEmpty(await world.plan(two));
    const { layers, merges } = await observe();
    expect(layers).toHaveLength(3);
    expect(merges.map((merge) => merge.chain.length).sort()).toEqual([2, 3]);

    const without = two.filter(({ metadata }) => metadata.name !== 'both');
    expect(lines(await world.plan(without))).toEqual([
      'delete Mount/both: removed-from-manifests',
      'delete LayerChain/both: removed-from-manifests',
      'delete Snapshot/?: unreferenced',
    ]);
    await world.apply(without);
    expect(await observe()).toMatchObject({ layers: [{}, {}], merges: [{ faults: [] }] });
  });

  it('replaces only what differs when the image changes', async () => {
    await world.apply(APP);
    world.images.set('app', 'abx');
    expect(lines(await world.plan(APP))).toEqual([
      'change Image/app: image-changed',
      'create Snapshot/3: needed-by',
      'create Merge/3: needed-by',
      'replace LayerChain/app: image-changed',
      'replace Mount/app: layers-changed',
      'delete Snapshot/?: unreferenced',
    ]);
    expect((await world.apply(APP)).failed).toEqual([]);
    expectEmpty(await world.plan(APP));
    expect((await observe()).merges).toHaveLength(1);
  });

  it('removes its merged CIM when the chain shrinks to layers that were merged further down', async () => {
    world.images.set('base', 'ab');
    const base = [image('base'), chain('base', ['base'])];
    await world.apply([...base, ...APP]);
    const unmerged = [image('base'), chain('base', ['base'], { merge: false }), ...APP];
    expect(lines(await world.plan(unmerged))).toEqual([
      'delete Merge/?: unreferenced',
      'change LayerChain/base: spec-changed',
    ]);
    await world.apply(unmerged);
    expectEmpty(await world.plan(unmerged));
    await world.apply([...base, ...APP]);
    const gone = await world.plan(APP, { targets: ['LayerChain/base'] });
    expect(lines(gone)).toEqual([
      'delete LayerChain/base: removed-from-manifests',
      'delete Merge/?: unreferenced',
    ]);
    await world.apply(APP);
    expectEmpty(await world.plan(APP));
    expect((await observe()).merges).toHaveLength(1);
  });

  it('is merged by one run at a time', async () => {
    let running = 0;
    let most = 0;
    world.close();
    world = openWorld({
      capabilities: BLOCK_CAPABILITIES,
      onCall: async ({ method }, stage) => {
        if (method !== 'mergeChain') return;
        running += stage === 'before' ? 1 : -1;
        most = Math.max(most, running);
        await new Promise((resolve) => setImmediate(resolve));
      },
    });
    world.images.set('app', 'ab');
    await world.apply([image('app'), chain('app', ['app'], { merge: false, format: 'BlockCIM' })]);
    const planned = await world.engine.plan(requestOf(APP), signal);
    await Promise.all([1, 2, 3].map(() => world.engine.apply(planned, { signal })));
    expect(most).toBe(1);
  });
});

describe('drift of a merged CIM', () => {
  const damage = (code: MergeFault['code']) => (top: LayerRef) =>
    world.host.damageMerge(top, { code, message: `${code} of merged.bcim` });
  const cases: [string, (top: LayerRef) => void, string[]][] = [
    ['gone', (top) => world.host.dropMerge(top), ['repair! Merge/3: merge-missing']],
    ['its file gone', damage('file-missing'), ['repair! Merge/3: file-missing']],
    ['its file damaged', damage('file-corrupt'), ['repair! Merge/3: file-corrupt']],
    ['other code', damage('builder-changed'), ['replace Merge/3: builder-changed']],
    ['another source', damage('source-changed'), ['replace Merge/3: source-changed']],
    [
      'a damaged layer, built again as it was',
      (top) => world.host.damageLayer(top, { code: 'file-size', message: 'short' }),
      ['repair! Snapshot/3: file-size'],
    ],
    [
      'a layer of other code',
      (top) => world.host.damageLayer(top, { code: 'builder-changed', message: 'old' }),
      ['replace Snapshot/3: builder-changed', 'replace Merge/3: source-changed'],
    ],
    [
      'the top layer gone with it',
      (top) => {
        world.host.dropLayer(top);
        world.host.dropMerge(top);
      },
      ['repair! Snapshot/3: layer-missing', 'repair! Merge/3: merge-missing'],
    ],
  ];
  it.each(cases)('%s', async (_name, disturb, expected) => {
    const top = await topOf(APP);
    await world.apply(APP);
    disturb(top);
    expect(lines(await world.plan(APP))).toEqual(expected);
    const { resources } = await world.engine.status(signal);
    expect(resources.find(({ key }) => key === 'LayerChain/app')?.drift).not.toEqual([]);
    expect((await world.apply(APP)).failed).toEqual([]);
    expectEmpty(await world.plan(APP));
  });

  it('is only reported where driftPolicy says so, unless a layer is replaced', async () => {
    const quiet = [image('app'), chain('app', ['app'], { driftPolicy: 'Report' })];
    const top = await topOf(quiet);
    await world.apply(quiet);
    world.host.damageMerge(top, { code: 'file-missing', message: 'merged.bcim is missing' });
    const plan = await world.plan(quiet);
    expectEmpty(plan);
    expect(plan.notes[0]?.message).toMatch(
      /^drift in the merged CIM on sha256:\w+, only reported .* is missing$/,
    );

    world.host.damageLayer(top, { code: 'file-missing', message: 'layer.bcim is missing' });
    const sealed = [image('app'), chain('app', ['app'], { driftPolicy: 'Report', integrity: 'Verified' })];
    expect((await world.apply(sealed)).failed).toEqual([]);
    expectEmpty(await world.plan(sealed));
    expect((await observe()).merges).toMatchObject([{ faults: [], rootHash: expect.any(String) }]);
  });

  it('retries a merge that may pass, and shows one that can not in the chain', async () => {
    world.host.failNext('mergeChain', new CimletError('busy', 'merge: busy'));
    world.host.failNext('mergeChain', new CimletError('corrupt', 'merge: wrong order'), { call: 2 });
    const result = await world.apply(APP);
    expect(result.failed).toMatchObject([{ action: { kind: 'Merge' } }]);
    expect(result.skipped.map(({ action }) => action.id)).toEqual(['LayerChain/app', 'Mount/app']);
    await world.apply(APP);
    expectEmpty(await world.plan(APP));

    world.host.dropMerge({ ...(await observe()).layers[0]!, ...topRef(await observe()) });
    world.host.failNext('mergeChain', new CimletError('corrupt', 'merge: wrong order'));
    await world.apply(APP);
    const conditions = world.state.resource('LayerChain/app')?.conditions;
    expect(conditions).toMatchObject([
      { type: 'Ready', status: 'False', reason: 'Corrupt' },
      { type: 'Stalled', status: 'True' },
    ]);
    await world.apply(APP);
    expectEmpty(await world.plan(APP));
  });

  function topRef({ merges }: HostState): LayerRef {
    return { chainId: merges[0]?.chain.at(-1) as ChainId, format: 'BlockCIM' };
  }
});

describe('integrity', () => {
  it('Verified seals layers and merged CIM, and the root hash is recorded and shown', async () => {
    const verified = app({ integrity: 'Verified' });
    await world.apply(verified);
    expectEmpty(await world.plan(verified));
    const { layers, merges, mounts } = await observe();
    expect(layers.every(({ rootHash }) => rootHash !== undefined)).toBe(true);
    const rootHash = merges[0]?.rootHash;
    expect(rootHash).toMatch(/^sha256:/);
    expect(mounts).toMatchObject([{ rootHash }]);
    expect(world.state.resource('LayerChain/app')?.facts.chain?.rootHash).toBe(rootHash);
    expect(world.state.resource('Mount/app')?.facts).toMatchObject({
      chain: { rootHash },
      mount: { rootHash },
    });
  });

  it('of a single layer is its own root hash', async () => {
    world.images.set('app', 'a');
    await world.apply(app({ integrity: 'Verified' }));
    const { layers } = await observe();
    expect(world.state.resource('LayerChain/app')?.facts.chain?.rootHash).toBe(layers[0]?.rootHash);
  });

  it('asked for later builds every layer anew, merges again and mounts again', async () => {
    await world.apply(APP);
    const verified = app({ integrity: 'Verified' });
    expect(lines(await world.plan(verified))).toEqual([
      'replace Snapshot/1: seal-changed',
      'replace Snapshot/2: seal-changed',
      'replace Snapshot/3: seal-changed',
      'replace Merge/3: seal-changed',
      'change LayerChain/app: spec-changed',
      'replace Mount/app: seal-changed',
    ]);
    expect((await world.apply(verified)).failed).toEqual([]);
    expectEmpty(await world.plan(verified));
    expect((await observe()).mounts).toMatchObject([{ rootHash: expect.any(String) }]);
    // Nothing is unsealed again.
    await world.apply(APP);
    expectEmpty(await world.plan(APP));
    expect((await observe()).layers.every(({ rootHash }) => rootHash !== undefined)).toBe(true);
  });

  it('is all or none among chains on the same base', async () => {
    world.images.set('app', 'ab');
    world.images.set('other', 'ac');
    world.images.set('apart', 'xy');
    const plain = [image('other'), chain('other'), mount('other'), image('apart'), chain('apart')];
    await world.apply(plain);
    const all = [...plain, ...app({ integrity: 'Verified' })];
    expect((await world.apply(all)).failed).toEqual([]);
    expectEmpty(await world.plan(all));
    const state = await observe();
    const sealed = state.layers.filter(({ rootHash }) => rootHash !== undefined).map(({ diffId }) => diffId);
    expect(sealed.sort()).toEqual(['a', 'b', 'c'].map(digest));
    expect(state.merges.flatMap(({ faults }) => faults)).toEqual([]);

    // A chain that comes later finds its base sealed.
    world.images.set('late', 'ad');
    const later = [...all, image('late'), chain('late'), mount('late')];
    expect((await world.apply(later)).failed).toEqual([]);
    expectEmpty(await world.plan(later));
  });

  it('of a chain of another source is brought in line when that is applied', async () => {
    world.images.set('app', 'ab');
    world.images.set('other', 'ac');
    const other = [image('other'), chain('other'), mount('other')];
    await world.apply(other, { id: 'there' });
    await world.apply(app({ integrity: 'Verified' }));
    expectEmpty(await world.plan(app({ integrity: 'Verified' })));
    expect((await world.apply(other, { id: 'there' })).failed).toEqual([]);
    expectEmpty(await world.plan(other, { id: 'there' }));
  });

  it('records the root hash anew when other code seals otherwise', async () => {
    const verified = app({ integrity: 'Verified' });
    await world.apply(verified);
    const before = world.state.resource('LayerChain/app');
    world.state.recordFacts('LayerChain/app', { chain: { ...before!.facts.chain!, rootHash: 'sha256:old' } });
    await world.apply(verified);
    expect(world.state.resource('LayerChain/app')?.facts).toEqual(before?.facts);
  });
});

describe('an expected root hash', () => {
  const wrong = digest('wrong');

  it('that is right mounts; a wrong one is refused at the mount, then blocked naming both', async () => {
    const verified: ChainSpec = { integrity: 'Verified' };
    const first = await world.apply(app(verified, { expectedRootHash: wrong }));
    expect(first.failed).toMatchObject([{ action: { id: 'Mount/app' }, error: { code: 'corrupt' } }]);
    const rootHash = (await observe()).merges[0]?.rootHash as string;
    const { blocked } = await world.plan(app(verified, { expectedRootHash: wrong }));
    expect(blocked).toMatchObject([{ key: 'Mount/app', code: 'corrupt' }]);
    expect(blocked[0]?.message).toContain(wrong);
    expect(blocked[0]?.message).toContain(rootHash);

    const right = app(verified, { expectedRootHash: rootHash });
    expect((await world.apply(right)).failed).toEqual([]);
    expectEmpty(await world.plan(right));
  });

  it('added to a mount of the same content changes nothing on the host', async () => {
    const verified: ChainSpec = { integrity: 'Verified' };
    await world.apply(app(verified));
    const rootHash = (await observe()).merges[0]?.rootHash as string;
    const right = app(verified, { expectedRootHash: rootHash });
    expect(lines(await world.plan(right))).toEqual(['change Mount/app: spec-changed']);
    await world.apply(right);
    expectEmpty(await world.plan(right));
    const { blocked } = await world.plan(app(verified, { expectedRootHash: wrong }));
    expect(blocked).toMatchObject([{ key: 'Mount/app' }]);
  });

  it('of an unsealed view brings that in line', async () => {
    await world.apply(app());
    const verified = app({ integrity: 'Verified' });
    await world.apply(verified.slice(0, 2), { prune: false });
    const rootHash = (await observe()).merges[0]?.rootHash as string;
    const right = app({ integrity: 'Verified' }, { expectedRootHash: rootHash });
    expect(lines(await world.plan(right))).toEqual(['replace Mount/app: seal-changed']);
    await world.apply(right);
    expectEmpty(await world.plan(right));
  });
});

describe('a VHD footer', () => {
  it('is added to layers and merged CIM when any chain wants it', async () => {
    await world.apply(APP);
    const footed = app({ vhdFooter: true });
    expect(lines(await world.plan(footed))).toEqual([
      'replace Snapshot/1: footer-changed',
      'replace Snapshot/2: footer-changed',
      'replace Snapshot/3: footer-changed',
      'replace Merge/3: source-changed',
      'change LayerChain/app: spec-changed',
    ]);
    const details = (await world.plan(footed)).actions.map(({ kind, detail }) => `${kind}: ${detail}`);
    expect(details.slice(2, 4)).toEqual([
      expect.stringMatching(/^Snapshot: BlockCIM layer 3 of LayerChain\/app, with VHD footer, diff ID/),
      'Merge: BlockCIM, 3 layers, with VHD footer',
    ]);
    await world.apply(footed);
    expectEmpty(await world.plan(footed));
    const { layers, merges } = await observe();
    expect([...layers, ...merges].every(({ vhdFooter }) => vhdFooter === true)).toBe(true);
  });
});

describe('archives', () => {
  function archive(name: string, content: string): string {
    const chunks: Uint8Array[] = [];
    const writer = new TarWriter((bytes) => chunks.push(Uint8Array.from(bytes)));
    writer.file({ name: `Files/${name}`, mtime: 0n }, Buffer.from(content));
    writer.finish();
    const bytes = gzipSync(Buffer.concat(chunks));
    writeFileSync(join(folder, name), bytes);
    return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
  }
  const stack = (layers: LayerChainResource['spec']['layers'], spec: ChainSpec = {}): Resource[] => [
    image('app'),
    { ...chain('app', [], { ...spec, layers }), baseDirectory: folder },
    mount('app'),
  ];

  it('are layers like any other, relative to the manifest, and a changed one is replaced', async () => {
    const pinned = archive('tools.tar.gz', 'tools');
    archive('more.tar.gz', 'more');
    const layers = [
      { image: 'app' },
      { archive: 'tools.tar.gz', digest: pinned },
      { archive: './more.tar.gz' },
    ];
    expect((await world.apply(stack(layers))).failed).toEqual([]);
    expectEmpty(await world.plan(stack(layers)));
    expect((await observe()).merges[0]?.chain).toHaveLength(5);

    archive('more.tar.gz', 'more and more');
    expect(lines(await world.plan(stack(layers)))).toEqual([
      'create Snapshot/5: needed-by',
      'create Merge/5: needed-by',
      'replace LayerChain/app: layers-changed',
      'replace Mount/app: layers-changed',
      'delete Snapshot/?: unreferenced',
    ]);
    await world.apply(stack(layers));
    expectEmpty(await world.plan(stack(layers)));
  });

  it('may be all of a chain', async () => {
    archive('base.tar', 'base');
    await world.apply(stack([{ archive: join(folder, 'base.tar') }]));
    expectEmpty(
      await world.plan(stack([{ archive: 'base.tar' }])).then((plan) => ({ ...plan, actions: [] })),
    );
    expect((await observe()).layers).toHaveLength(1);
  });

  it.each([
    ['that is not there', { archive: 'none.tar' }, 'not-found', /read archive .*none\.tar/],
    [
      'with another digest',
      { archive: 'a.tar', digest: digest('x') },
      'corrupt',
      /expected digest .*, found sha256/,
    ],
    ['that is no tar', { archive: 'text' }, 'corrupt', /holds no tar/],
  ])('%s block the chain and its mount only', async (_name, layer, code, message) => {
    archive('a.tar', 'a');
    writeFileSync(join(folder, 'text'), 'no tar');
    const plan = await world.plan([...stack([{ image: 'app' }, layer]), chain('sound', ['app'])]);
    expect(plan.blocked).toMatchObject([
      { key: 'LayerChain/app', code, message: expect.stringMatching(message) },
      { key: 'Mount/app', code: 'dependency' },
    ]);
    expect(plan.actions.map(({ id }) => id)).toContain('LayerChain/sound');
  });

  it('of a suspended chain are not read', async () => {
    const plan = await world.plan(stack([{ archive: 'none.tar' }], { suspend: true }));
    expect(plan.blocked.map(({ code }) => code)).toEqual(['suspended', 'suspended']);
  });
});

describe('what blocks', () => {
  const without = (name: 'seal' | 'merge' | 'BlockCIM.write') => {
    world.close();
    world = openWorld({
      capabilities: { ...BLOCK_CAPABILITIES, [name]: { available: false, reason: `no ${name} here` } },
    });
    world.images.set('app', 'abc');
  };
  const cases: [string, () => Resource[], string, string, RegExp][] = [
    [
      'merging forked CIMs',
      () => app({ merge: true, format: 'ForkedCIM' }),
      'LayerChain/app',
      'invalid-manifest',
      /spec\.merge: ForkedCIM layers are not merged/,
    ],
    [
      'merging one layer',
      () => {
        world.images.set('app', 'a');
        return app({ merge: true });
      },
      'LayerChain/app',
      'invalid-manifest',
      /two layers or more, and this chain has one/,
    ],
    [
      'merging more layers than can be merged',
      () => {
        world.images.set('app', LAYERS_129);
        return app({ format: 'BlockCIM' });
      },
      'LayerChain/app',
      'invalid-manifest',
      /has 129 layers, and at most 128 can be merged/,
    ],
    [
      'sealing forked CIMs',
      () => app({ integrity: 'Verified', format: 'ForkedCIM' }),
      'LayerChain/app',
      'invalid-manifest',
      /ForkedCIM layers can't be sealed/,
    ],
    [
      'a footer on forked CIMs',
      () => app({ vhdFooter: true, format: 'ForkedCIM' }),
      'LayerChain/app',
      'invalid-manifest',
      /ForkedCIM layers are no disks/,
    ],
    [
      'mounting what is not to be merged',
      () => app({ merge: false }),
      'Mount/app',
      'invalid-manifest',
      /needs the merged CIM of LayerChain\/app, whose spec\.merge is false/,
    ],
    [
      'expecting a root hash of an unverified chain',
      () => app({}, { expectedRootHash: digest('x') }),
      'Mount/app',
      'invalid-manifest',
      /only a chain with `integrity: Verified` has a root hash/,
    ],
    [
      'expecting a root hash of an image',
      () => [image('app'), mount('app', { image: 'app', expectedRootHash: digest('x') })],
      'Mount/app',
      'invalid-manifest',
      /integrity: Verified/,
    ],
    [
      'a host that can not seal',
      () => {
        without('seal');
        return app({ integrity: 'Verified' });
      },
      'LayerChain/app',
      'unsupported-host',
      /can't seal layers: no seal here/,
    ],
    [
      'a host that can not merge',
      () => {
        without('merge');
        return app({ format: 'BlockCIM' });
      },
      'LayerChain/app',
      'unsupported-host',
      /can't merge chains: no merge here/,
    ],
    [
      'a host without block CIMs, asked for what needs them',
      () => {
        without('BlockCIM.write');
        return app({ vhdFooter: true });
      },
      'LayerChain/app',
      'unsupported-host',
      /can't write BlockCIM layers: no BlockCIM.write here/,
    ],
  ];
  it.each(cases)('%s', async (_name, make, key, code, message) => {
    const resources = make();
    const plan = await world.plan(resources);
    expect(plan.blocked.find((entry) => entry.key === key)).toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
    expect(plan.actions.map(({ id }) => id)).not.toContain(key);
  });
});

describe('a run killed around merging', () => {
  const effects: EffectName[] = [
    'unpackLayer',
    'commitLayer',
    'mergeChain',
    'removeMerge',
    'mount',
    'removeLayer',
  ];
  const points = effects.flatMap((method) =>
    (['before', 'after'] as const).flatMap((stage) => [1, 2].map((call) => [method, stage, call] as const)),
  );

  it.each(points)('%s, %s it, call %i', async (method, stage, call) => {
    world.images.set('app', 'ab');
    world.images.set('over', 'abc');
    const over = [image('over'), chain('over')];
    const steps = [
      [...app(), ...over],
      [...app({ integrity: 'Verified' }), ...over],
      over,
      [...app(), ...over],
      over,
      [],
    ];
    let deaths = 0;
    world.killAt(method, stage, call);
    for (const step of steps) {
      await Promise.allSettled([world.apply(step)]);
      if (world.isDead) {
        deaths++;
        world.restart();
        expect((await world.apply(step)).failed).toEqual([]);
      }
      expectEmpty(await world.plan(step));
      expectValidRecords(world.state);
    }
    expect(deaths).toBe(1);
    const { layers, merges, mounts, leftovers } = await observe();
    expect({ layers, merges, mounts, leftovers }).toEqual({
      layers: [],
      merges: [],
      mounts: [],
      leftovers: [],
    });
  });
});
