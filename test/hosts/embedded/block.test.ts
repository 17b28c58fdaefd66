import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readdir, readFile, realpath, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createEmbeddedHost } from '../../../src/hosts/embedded/embedded-host.ts';
import type { UnpackRequest, ViewKind } from '../../../src/hosts/host.ts';
import { hexOf } from '../../../src/hosts/identity.ts';
import { type LayerItem, layerItems } from '../../support/host-layers.ts';
import { hasTool, requireOrSkip } from '../../support/requirements.ts';
import { diffTrees, readTree } from '../../support/tree.ts';
import {
  asBlocks,
  type Bench,
  build,
  context,
  makeStack,
  mergeOf,
  mountRequest,
  openBench,
} from './fixture.ts';

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const kernel = requireOrSkip('kernel EROFS mounts', capabilities['view.Kernel'].available);

const BIG = randomBytes(300_001);
const file = (name: string, content: string | Uint8Array): LayerItem => ({
  name: `Files/${name}`,
  type: 'file',
  content: Buffer.from(content),
});
const STACK: LayerItem[][] = [
  [
    ...layerItems({ 'a.txt': 'a', 'dir/b.txt': 'b', 'dir/deep/c.txt': 'c', 'gone.txt': 'x' }),
    file('big.bin', BIG),
    file('hidden.bin', BIG.subarray(7)),
  ],
  [
    ...layerItems({ 'a.txt': 'A', 'dir/b.txt': null, 'opaque/one.txt': '1' }),
    { name: 'Files/dir/hard.bin', type: 'hard-link', linkName: 'Files/big.bin' },
    file('upper.bin', BIG.subarray(0, 5000)),
    { name: 'Files/link', type: 'symlink', linkName: 'dir\\hard.bin' },
  ],
  [
    ...layerItems({ 'gone.txt': null, 'hidden.bin': 'no more', 'top/t.txt': 't' }),
    { name: 'Files/opaque/', type: 'directory' },
    file('opaque/.wh..wh..opq', ''),
    file('opaque/two.txt', '2'),
  ],
];

interface Built extends Bench {
  requests: [UnpackRequest, UnpackRequest, UnpackRequest];
  top: string;
  /** Of the layers, base first, and of the merged CIM. */
  containers: string[];
}

async function built(
  change: Parameters<typeof asBlocks>[1] = {},
  options: Parameters<typeof openBench>[0] = {},
): Promise<Built> {
  const bench = await openBench(options);
  const requests = asBlocks(await makeStack(join(bench.directory, 'blobs'), ...STACK), change);
  await build(bench.host, requests);
  await bench.host.mergeChain(mergeOf(requests), context);
  const top = hexOf(requests.at(-1)!.chainId);
  const containers = [
    ...requests.map(({ chainId }) => join(bench.root, 'snapshots', `${hexOf(chainId)}.block`, 'layer.bcim')),
    join(bench.root, 'snapshots', `${top}.merged`, 'merged.bcim'),
  ];
  return { ...bench, requests: requests as Built['requests'], top, containers };
}

const views: [ViewKind, boolean, boolean][] = [
  ['Kernel', false, kernel],
  ['Kernel', true, kernel],
  ['Extracted', false, true],
];
describe('a merged chain', () => {
  for (const [view, forceLoop, available] of views)
    for (const change of [{}, { seal: true, vhdFooter: true }])
      it.runIf(available)(
        `shows what the forked chain shows (${view}${forceLoop ? ' over loop devices' : ''}, ${JSON.stringify(change)})`,
        async () => {
          const { directory, root, host, requests, top } = await built(change, { forceLoop });
          const forked = requests.map(
            ({ seal: _seal, vhdFooter: _footer, ...request }): UnpackRequest => ({
              ...request,
              format: 'ForkedCIM',
            }),
          );
          await build(host, forked);
          const expected = mountRequest(join(directory, 'forked'), forked, view);
          const actual = mountRequest(join(directory, 'block'), requests, view);
          await host.mount(expected, context);
          await host.mount(actual, context);
          const tree = readTree(await realpath(actual.path));
          expect(diffTrees(readTree(await realpath(expected.path)), tree)).toEqual([]);
          expect([...tree.keys()]).toEqual(
            expect.arrayContaining(['opaque/two.txt', 'dir/hard.bin', 'top/t.txt']),
          );
          for (const gone of ['gone.txt', 'opaque/one.txt', 'dir/b.txt']) expect(tree.has(gone)).toBe(false);
          expect(tree.get('big.bin')?.links).toEqual(['big.bin', 'dir/hard.bin']);
          if (view === 'Kernel') {
            const image = await stat(join(root, 'views', `${top}.block.erofs`));
            expect(image.size, 'no page-aligned data is copied').toBeLessThan(BIG.length / 4);
          }
          for (const { volumeGuid } of [expected, actual]) await host.dismount(volumeGuid, context);
          for (const request of [...requests, ...forked].reverse()) await host.removeLayer(request, context);
          const left = await readdir(root, { recursive: true, withFileTypes: true });
          expect(left.filter((entry) => entry.isFile()).map(({ name }) => name)).toEqual([]);
        },
      );

  it('is the same bytes on two hosts, whatever was built before', async () => {
    const change = { seal: true, vhdFooter: true };
    const [one, two] = [await built(change), await openBench()];
    const strange = asBlocks(await makeStack(join(two.directory, 'other'), layerItems({ x: 'x' })));
    const requests = asBlocks(await makeStack(join(two.directory, 'blobs'), ...STACK), change);
    await build(two.host, [...strange, ...requests]);
    await two.host.mergeChain(mergeOf(requests), context);
    for (const container of one.containers) {
      const other = container.replace(one.root, two.root);
      expect((await readFile(container)).equals(await readFile(other)), container).toBe(true);
    }
    const facts = async ({ host }: Bench) => {
      const { layers, merges } = await host.observe(context);
      return { merges, layers: layers.filter(({ chainId }) => chainId !== strange[0].chainId) };
    };
    expect(await facts(two)).toEqual(await facts(one));
  });

  it('refuses layers that are not its own, and one of another builder', async () => {
    const { directory, root, host, requests } = await built();
    const [base, ...rest] = requests;
    const skipping = mountRequest(join(directory, 'm'), [base, ...rest.slice(1)], 'Extracted');
    await expect(host.mount(skipping, context)).rejects.toMatchObject({ code: 'failed-precondition' });
    const swapped = mountRequest(join(directory, 'm'), [...requests].reverse(), 'Extracted');
    await expect(host.mount(swapped, context)).rejects.toMatchObject({ code: 'failed-precondition' });
    const record = join(root, 'snapshots', `${hexOf(base.chainId)}.block`, 'layer.json');
    const text = await readFile(record, 'utf8');
    await writeFile(record, text.replace(/embedded-block-cim\/\d+/, 'embedded-block-cim/0'));
    const state = await host.observe(context);
    expect(state.layers.flatMap(({ faults }) => faults.map(({ code }) => code))).toEqual(['builder-changed']);
    expect(state.merges[0]?.faults.map(({ code }) => code)).toEqual(['source-missing']);
    await build(host, requests);
    expect(await host.observe(context)).toMatchObject({ merges: [{ faults: [] }], leftovers: [] });
  });

  it('refuses a source that was exchanged behind its record', async () => {
    const { directory, host, requests, containers } = await built();
    const other = await openBench();
    const [, , third] = requests;
    const stranger = asBlocks(await makeStack(join(other.directory, 'blobs'), layerItems({ 'a.txt': 'b' })));
    await build(other.host, stranger);
    const bytes = await readFile(
      join(other.root, 'snapshots', `${hexOf(stranger[0].chainId)}.block`, 'layer.bcim'),
    );
    const size = (await stat(containers[2]!)).size;
    expect(third).toBeDefined();
    await writeFile(containers[2]!, Buffer.concat([bytes, Buffer.alloc(size)]).subarray(0, size));
    const refused = host.mount(mountRequest(join(directory, 'm'), requests, 'Extracted'), context);
    await expect(refused).rejects.toMatchObject({ code: 'failed-precondition' });
    expect(await host.observe(context)).toMatchObject({ mounts: [], leftovers: [] });
  });

  it.runIf(kernel)('is shown sealed as soon as it is sealed, even while it is in use', async () => {
    const { directory, host, requests } = await built();
    const request = mountRequest(join(directory, 'm'), requests);
    expect((await host.mount(request, context)).rootHash).toBeUndefined();
    const sealed = asBlocks(requests, { seal: true });
    await build(host, sealed);
    const merged = await host.mergeChain(mergeOf(sealed), context);
    expect((await host.observe(context)).mounts).toMatchObject([
      { state: 'mounted', rootHash: merged.rootHash },
    ]);
    expect((await readFile(join(request.path, 'big.bin'))).equals(BIG)).toBe(true);
    await host.dismount(request.volumeGuid, context);
  });
});

/** Flips a bit, and returns what was there. */
async function flip(path: string, offset: number): Promise<Buffer> {
  const bytes = await readFile(path);
  const before = Buffer.from(bytes);
  bytes.writeUInt8(bytes.readUInt8(offset) ^ 0x08, offset);
  await writeFile(path, bytes);
  return before;
}

/** Puts another sealed container of the same size in the base layer's place. */
async function exchangeBase([container = '']: readonly string[]): Promise<void> {
  const other = await openBench();
  const [base = []] = STACK;
  const evil = file('hidden.bin', Buffer.concat([BIG.subarray(7, -1), Buffer.from('!')]));
  const changed = base.map((item) => (item.name === evil.name ? evil : item));
  const theirs = asBlocks(await makeStack(join(other.directory, 'blobs'), changed), { seal: true });
  await build(other.host, theirs);
  const bytes = await readFile(
    join(other.root, 'snapshots', `${hexOf(theirs[0].chainId)}.block`, 'layer.bcim'),
  );
  expect(bytes.length).toBe((await stat(container)).size);
  await writeFile(container, bytes);
}

/** Makes a file that changed look like the one that was verified last. */
async function hideChange(container: string): Promise<void> {
  const { size, ctimeNs } = await stat(container, { bigint: true });
  const kept = join(container, '../check.json');
  const check = JSON.parse(await readFile(kept, 'utf8')) as object;
  await writeFile(kept, JSON.stringify({ ...check, stamp: `${size} ${ctimeNs}` }));
}

async function faultCodes({ host }: Bench): Promise<string[][]> {
  const { layers, merges } = await host.observe(context);
  return [...layers, ...merges].map(({ faults }) => faults.map(({ code }) => code));
}

describe('a sealed chain', () => {
  it.each([
    ['a layer is built on it', 2, ({ host, requests }: Built) => host.unpackLayer(requests[2], context)],
    ['it is merged', 3, ({ host, requests }: Built) => host.mergeChain(mergeOf(requests), context)],
    ['it is exported', 2, ({ host, requests }: Built) => host.exportLayer(requests[0], '/dev/null', context)],
  ])(
    'has a layer that was exchanged refused when %s, and known as damaged then',
    async (_when, count, use) => {
      const bench = await built({ seal: true });
      const { host, requests, containers } = bench;
      const [base = ''] = containers;
      const before = await readFile(base);
      await host.removeLayer(requests[2], context);
      await build(host, requests.slice(0, count));
      await exchangeBase(containers);
      await hideChange(base);
      expect((await faultCodes(bench)).flat()).toEqual([]);
      await expect(use(bench)).rejects.toMatchObject({
        code: 'failed-precondition',
        message: expect.stringContaining(base) as string,
        hint: expect.stringContaining('apply again') as string,
      });
      expect((await faultCodes(bench)).flat()).toContain('file-corrupt');
      expect((await host.observe(context)).leftovers).toEqual([]);
      await build(host, requests);
      expect((await faultCodes(bench)).flat()).toEqual([]);
      expect((await readFile(base)).equals(before)).toBe(true);
    },
  );

  it('is verified again when its files changed, and taken for sound when they are what was sealed', async () => {
    const bench = await built({ seal: true });
    for (const container of bench.containers) {
      const before = await flip(container, 600);
      expect((await faultCodes(bench)).flat()).toContain('file-corrupt');
      await writeFile(container, before);
      expect((await faultCodes(bench)).flat()).toEqual([]);
      await writeFile(join(container, '../check.json'), '{"formatVersion": 1, "sta');
      expect((await faultCodes(bench)).flat()).toEqual([]);
    }
    const { host, root, requests } = bench;
    const folder = join(root, 'snapshots', `${hexOf(requests[0].chainId)}.block`);
    await writeFile(join(folder, 'integrity_checksum'), '0'.repeat(64));
    expect((await faultCodes(bench)).flat()).toContain('file-corrupt');
    await build(host, requests);
    await host.mergeChain(mergeOf(requests), context);
    expect((await faultCodes(bench)).flat()).toEqual([]);
  });

  it('has each root hash in a file beside its container, in bare hexadecimal', async () => {
    const { host, containers } = await built({ seal: true });
    const { layers, merges } = await host.observe({ signal: context.signal });
    const hashes = [...layers, ...merges].map(({ rootHash = '' }) => hexOf(rootHash));
    const files = await Promise.all(
      containers.map((container) => {
        const isMerged = container.endsWith('merged.bcim');
        return readFile(
          join(container, '..', isMerged ? 'merged_integrity_checksum' : 'integrity_checksum'),
          'utf8',
        );
      }),
    );
    expect(files.every((text) => /^[0-9a-f]{64}$/.test(text))).toBe(true);
    expect(files.sort()).toEqual(hashes.sort());
  });

  it.each(['Kernel', 'Extracted'] as const)(
    'is not shown with one bit flipped anywhere (%s)',
    async (view) => {
      if (view === 'Kernel' && !kernel) return;
      const { directory, host, requests, containers } = await built({ seal: true });
      const request = mountRequest(join(directory, 'deep/m'), requests, view);
      for (const container of containers) {
        const { size } = await stat(container);
        for (const offset of [600, Math.floor(size / 2), size - 4096]) {
          const before = await flip(container, offset);
          await expect(host.mount(request, context), `${container} ${offset}`).rejects.toMatchObject({
            code: 'failed-precondition',
            message: expect.stringContaining(container) as string,
            hint: expect.stringContaining('apply again') as string,
          });
          expect(existsSync(join(directory, 'deep'))).toBe(false);
          await writeFile(container, before);
        }
      }
      await host.mount(request, context);
      expect((await readFile(join(request.path, 'big.bin'))).equals(BIG)).toBe(true);
      await host.dismount(request.volumeGuid, context);
    },
  );

  it('is not shown with another seal, right as that is by itself', async () => {
    const { directory, host, requests, containers } = await built({ seal: true });
    await exchangeBase(containers);
    for (const chain of [requests.slice(0, 1), requests]) {
      const mounting = host.mount(mountRequest(join(directory, 'm'), chain, 'Extracted'), context);
      await expect(mounting).rejects.toMatchObject({ code: 'failed-precondition' });
    }
  });

  it.runIf(kernel)(
    'is shown through an image made of what was verified, not of one that lay around',
    async () => {
      const { directory, root, host, requests, top } = await built({ seal: true });
      const request = mountRequest(join(directory, 'm'), requests);
      await host.mount(request, context);
      await host.dismount(request.volumeGuid, context);
      const image = join(root, 'views', `${top}.block.erofs`);
      const text = await readFile(image);
      const at = text.indexOf('no more');
      expect(at).toBeGreaterThan(0);
      text.write('tampers', at);
      await writeFile(image, text);
      await host.mount(request, context);
      expect(await readFile(join(request.path, 'hidden.bin'), 'utf8')).toBe('no more');
      await host.dismount(request.volumeGuid, context);
    },
  );

  it('has forked layers refuse seal and footer', async () => {
    const { directory, host } = await openBench();
    const [layer] = await makeStack(join(directory, 'blobs'), layerItems({ a: 'a' }));
    for (const change of [{ seal: true }, { vhdFooter: true }])
      await expect(host.unpackLayer({ ...layer, ...change }, context)).rejects.toMatchObject({
        code: 'invalid-manifest',
      });
  });

  it.runIf(requireOrSkip('qemu-img', hasTool('qemu-img')))('ends with a footer that qemu takes', async () => {
    const { containers } = await built({ seal: true, vhdFooter: true });
    for (const container of containers) {
      const info = execFileSync('qemu-img', ['info', '--output=json', '-f', 'vpc', container], {
        encoding: 'utf8',
      });
      expect(JSON.parse(info)).toMatchObject({
        format: 'vpc',
        'virtual-size': (await stat(container)).size - 512,
      });
    }
  });
});

describe('an exported layer', () => {
  it('is written whole or not at all, and into a pipe too', async () => {
    const { directory, host, requests } = await built();
    const target = join(directory, 'layer.tar');
    await writeFile(target, 'old');
    const controller = new AbortController();
    const exporting = host.exportLayer(requests[0], target, {
      signal: controller.signal,
      progress: () => controller.abort(),
    });
    await exporting.catch((error: unknown) => expect(error).toMatchObject({ code: 'cancelled' }));
    await rm(target);
    await host.exportLayer(requests[0], target, context);
    const tar = await readFile(target);
    expect(execFileSync('tar', ['-tf', target], { encoding: 'utf8' })).toContain('Files/big.bin');
    expect((await readdir(directory)).filter((name) => name.includes('.part'))).toEqual([]);
    await host.exportLayer(requests[0], '/dev/null', context);
    expect(tar.length % 512).toBe(0);
  });
});
