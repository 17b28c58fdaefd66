import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createBlockCimWriter } from '../../src/cim/block-writer.ts';
import { mergeBlockCims } from '../../src/cim/merge.ts';
import { publishContainer } from '../../src/cim/publish.ts';
import { openCim } from '../../src/cim/reader.ts';
import { FileAttribute } from '../../src/cim/types.ts';
import { verifyCim } from '../../src/cim/verify.ts';
import { CimletError } from '../../src/errors.ts';
import { exportLayer } from '../../src/layers/export-layer.ts';
import { type ImportResult, importBlockLayer } from '../../src/layers/import-layer.ts';
import type { LayerTarWriter } from '../../src/layers/layer-tar.ts';
import { lowerViewOf } from '../../src/layers/lower-view.ts';
import { dumpCim, inChunks, makeLayer } from '../tar/tar-helpers.ts';
import { dumpView, importIntoBlockCims, withCims } from './block-layers.ts';
import { expected, linksForward, type Operation, onlyFiles, stack, tarOfOperations } from './stack-model.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cimlet-block-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const MERGED = '11111111-0000-4000-8000-000000000000';

type Fill = (layer: LayerTarWriter) => void;

const BASE: Fill = (layer) => {
  layer.directory('Files', { lastWriteTime: 133_000_000_000_000_000n });
  layer.directory('Files/dir', { attributes: FileAttribute.hidden });
  layer.file('Files/dir/a', 'lower a');
  layer.file('Files/dir/b', 'lower b');
  layer.directory('Files/dir/sub');
  layer.file('Files/dir/sub/deep', 'lower deep');
  layer.symlink('Files/link', 'dir');
  layer.file('Files/file', 'lower file');
};

/** What the last layer's own CIM holds: `path` and what is there. */
async function ownOf(...fills: Fill[]): Promise<Record<string, string>> {
  const { files } = await importIntoBlockCims([BASE, ...fills].map(makeLayer), directory);
  for (const file of files) expect([...verifyCim(file)]).toEqual([]);
  const cim = openCim(files.at(-1)!);
  try {
    const found: [string, string][] = [];
    const first = new Map<number, string>();
    for (const { path, id } of cim.walk()) {
      const info = cim.stat(id);
      const [content] = info.isDirectory || info.mark !== undefined ? [] : cim.streamChunks(id);
      const what = info.mark?.kind === 'merge-link' ? `merge link to ${info.mark.target}` : info.mark?.kind;
      const text = content?.toString() ?? '';
      const same = first.get(id);
      first.set(id, same ?? path);
      found.push([path, what ?? (same === undefined ? text : `same as ${same}`)]);
    }
    return Object.fromEntries(found);
  } finally {
    cim.close();
  }
}

/** What all layers show together below Files/. */
async function shownBy(...fills: Fill[]): Promise<Record<string, string>> {
  const { files } = await importIntoBlockCims([BASE, ...fills].map(makeLayer), directory);
  const dump = await withCims(files, (readers) => dumpView(lowerViewOf(...readers)));
  const below = [...dump].filter(([path]) => path.startsWith('Files/'));
  return Object.fromEntries(below.map(([path, { content }]) => [path.slice(6), content]));
}

async function failure(...fills: Fill[]): Promise<CimletError> {
  try {
    await importIntoBlockCims(fills.map(makeLayer), directory);
  } catch (error) {
    if (error instanceof CimletError) return error;
    throw error;
  }
  throw new Error('the layers were accepted');
}

describe('a block CIM', () => {
  it('of a whiteout holds a tombstone, and the directories above as they are below', async () => {
    expect(await ownOf((layer) => layer.whiteout('Files/dir/sub/deep'))).toEqual({
      Files: '',
      'Files/dir': '',
      'Files/dir/sub': '',
      'Files/dir/sub/deep': 'tombstone',
    });
    const cim = openCim(join(directory, 'layer1.bcim'));
    expect(cim.stat(cim.lookup('Files')!)).toMatchObject({ lastWriteTime: 133_000_000_000_000_000n });
    expect(cim.stat(cim.lookup('Files/dir')!).attributes).toBe(0x12);
    cim.close();
  });

  it('holds no tombstone below another', async () => {
    const own = await ownOf((layer) => {
      layer.whiteout('Files/dir/sub/deep');
      layer.whiteout('Files/dir/a');
      layer.whiteout('Files/DIR');
    });
    expect(own).toEqual({ Files: '', 'Files/DIR': 'tombstone' });
  });

  it.each(['before', 'after'])('has no tombstone for what the layer adds again (%s)', async (order) => {
    const marker: Fill = (layer) => {
      layer.whiteout('Files/dir');
      layer.whiteout('Files/file');
    };
    const own = await ownOf((layer) => {
      if (order === 'before') marker(layer);
      layer.directory('Files/dir');
      layer.file('Files/dir/a', 'new a');
      layer.directory('Files/dir/sub');
      layer.file('Files/file', 'new');
      if (order === 'after') marker(layer);
    });
    expect(own).toEqual({
      Files: '',
      'Files/dir': '',
      'Files/dir/a': 'new a',
      'Files/dir/b': 'tombstone',
      'Files/dir/sub': '',
      'Files/dir/sub/deep': 'tombstone',
      'Files/file': 'new',
    });
  });

  it('of an opaque directory has tombstones for all that is not added again, and shows the rest', async () => {
    const fill: Fill = (layer) => {
      layer.opaque('Files/dir');
      layer.file('Files/dir/new', 'new');
    };
    expect(await ownOf(fill)).toEqual({
      Files: '',
      'Files/dir': '',
      'Files/dir/a': 'tombstone',
      'Files/dir/b': 'tombstone',
      'Files/dir/new': 'new',
      'Files/dir/sub': 'tombstone',
    });
    expect(await shownBy(fill)).toEqual({ dir: '', 'dir/new': 'new', file: 'lower file', link: 'dir' });
  });

  it('hides lower content by files and links without tombstones', async () => {
    const fill: Fill = (layer) => {
      layer.file('Files/dir', 'a file now');
      layer.directory('Files/file');
      layer.file('Files/file/x', 'x');
    };
    expect(Object.values(await ownOf(fill))).not.toContain('tombstone');
    expect(await shownBy(fill)).toEqual({ dir: 'a file now', file: '', 'file/x': 'x', link: 'dir' });
  });

  it('hides a lower directory by a symlink to a directory', async () => {
    const shown = await shownBy((layer) => layer.symlink('Files/dir', 'elsewhere', {}, true));
    expect(shown).toEqual({ dir: 'elsewhere', file: 'lower file', link: 'dir' });
  });

  it('has hard links to its own files, wherever in the tar, and merge links to lower ones', async () => {
    const fill: Fill = (layer) => {
      layer.hardLink('Files/early', 'Files/late');
      layer.hardLink('Files/chain', 'Files/EARLY');
      layer.hardLink('Files/lower', 'Files/dir/a');
      layer.hardLink('Files/lower2', 'Files/lower');
      layer.hardLink('Files/new a', 'Files/dir/b');
      layer.file('Files/late', 'late');
      layer.file('Files/dir/b', 'own b');
      layer.whiteout('Files/dir/a');
    };
    expect(await ownOf(fill)).toEqual({
      Files: '',
      'Files/chain': 'late',
      'Files/dir': '',
      'Files/dir/a': 'tombstone',
      'Files/dir/b': 'own b',
      'Files/early': 'same as Files/chain',
      'Files/late': 'same as Files/chain',
      'Files/lower': 'merge link to Files/dir/a',
      'Files/lower2': 'merge link to Files/dir/a',
      'Files/new a': 'same as Files/dir/b',
    });
    expect(await shownBy(fill)).toMatchObject({ lower: 'lower a', lower2: 'lower a', 'new a': 'own b' });
  });

  // hcsshim writes tombstones as they come and decides links when the tar has ended: their order doesn't count.
  it.each(['before', 'after'])(
    'links to lower files that it takes away, and over them (whiteout %s)',
    async (order) => {
      const fill: Fill = (layer) => {
        const takeAway = () => {
          for (const path of ['Files/file', 'Files/dir', 'Files/link']) layer.whiteout(path);
        };
        if (order === 'before') takeAway();
        layer.hardLink('Files/kept', 'Files/file');
        layer.hardLink('Files/deep', 'Files/dir/sub/deep');
        layer.hardLink('Files/link', 'Files/dir/a');
        if (order === 'after') takeAway();
      };
      expect(await ownOf(fill)).toEqual({
        Files: '',
        'Files/deep': 'merge link to Files/dir/sub/deep',
        'Files/dir': 'tombstone',
        'Files/file': 'tombstone',
        'Files/kept': 'merge link to Files/file',
        'Files/link': 'merge link to Files/dir/a',
      });
      expect(await shownBy(fill)).toEqual({ deep: 'lower deep', kept: 'lower file', link: 'lower a' });
    },
  );

  it('takes alternate streams of directories along', async () => {
    const streams: Fill = (layer) => {
      layer.directory('Files/streams');
      layer.stream('Files/streams', 's', 'content');
    };
    const { files } = await importIntoBlockCims(
      [BASE, streams, (layer: LayerTarWriter) => layer.file('Files/streams/x', '')].map((fill) =>
        makeLayer(fill),
      ),
      directory,
    );
    const cim = openCim(files.at(-1)!);
    expect(cim.streams(cim.lookup('Files/streams')!)).toEqual([{ name: 's', size: 7 }]);
    cim.close();
  });

  it('warns of a utility VM above the base layer only', async () => {
    const uvm: Fill = (layer) => layer.file('UtilityVM/Files/EFI/Microsoft/Boot/BCD', 'bcd');
    const warnings = ({ results }: { results: ImportResult[] }) =>
      results.map((result) => result.warnings.at(-1));
    const imported = await importIntoBlockCims([uvm, uvm].map(makeLayer), directory);
    expect(warnings(imported)).toEqual([
      expect.stringContaining('no registry hives'),
      'utility VM files in a layer above the base are kept, but not merged with those below',
    ]);
  });

  it('is the same, byte for byte, for the same layers', async () => {
    const layers = [BASE, (layer: LayerTarWriter) => layer.opaque('Files/dir')].map((fill) =>
      makeLayer(fill),
    );
    const [one, two] = [
      await importIntoBlockCims(layers, directory, 'one'),
      await importIntoBlockCims(layers, directory, 'two'),
    ];
    const { readFileSync } = await import('node:fs');
    for (const [index, file] of one.files.entries())
      expect(readFileSync(file).equals(readFileSync(two.files[index]!))).toBe(true);
  });
});

describe('a block layer is refused', () => {
  it.each<[string, Fill, RegExp]>([
    [
      'for a whiteout of nothing',
      (layer) => {
        layer.directory('Files');
        layer.whiteout('Files/nothing');
      },
      /^tar entry "Files\/\.wh\.nothing" at offset 1536: whiteout of "Files\/nothing": the layers below have nothing there$/,
    ],
    [
      'for a whiteout below a file',
      (layer) => layer.whiteout('Files/file/x'),
      /whiteout of "Files\/file\/x": the layers below have nothing there/,
    ],
    [
      'for a whiteout in a new directory',
      (layer) => {
        layer.directory('Files/new');
        layer.whiteout('Files/new/x');
      },
      /whiteout of "Files\/new\/x"/,
    ],
    [
      'for a circle of links',
      (layer) => {
        layer.hardLink('Files/x', 'Files/y');
        layer.hardLink('Files/y', 'Files/z');
        layer.hardLink('Files/z', 'Files/x');
      },
      /^tar entry "Files\/x" at offset 0: hard link to "Files\/y": the links lead in a circle$/,
    ],
    [
      'for a link to nothing',
      (layer) => layer.hardLink('Files/x', 'Files/nothing'),
      /^tar entry "Files\/x" at offset 0: hard link to "Files\/nothing": there is no such file/,
    ],
    ['for a link to a directory', (layer) => layer.hardLink('Files/x', 'Files/dir'), /no such file/],
    [
      'for a link to its own directory',
      (layer) => {
        layer.directory('Files/own');
        layer.hardLink('Files/x', 'Files/own');
      },
      /^tar entry "Files\/x" at offset 1536: .*directory/,
    ],
    [
      'for a directory that becomes a file',
      (layer) => {
        layer.directory('Files/x');
        layer.file('Files/x', '');
      },
      /^tar entry "Files\/x" at offset 1536: the layer adds "Files\/x" twice/,
    ],
    ['for a stream without a file', (layer) => layer.stream('Files/file', 's', ''), /must follow its file/],
  ])('%s', async (_, fill, message) => {
    const error = await failure(BASE, fill);
    expect(error.code).toBe('corrupt');
    expect(error.message).toMatch(message);
  });

  it('for a whiteout in a base layer', async () => {
    expect((await failure((layer) => layer.whiteout('Files/x'))).message).toContain('nothing there');
  });
});

/** Imports a stack into block CIMs; undefined where only block layers are refused. */
async function importRandom(layers: readonly Operation[][], folder: string): Promise<string[] | undefined> {
  try {
    const tars = layers.map((layer) => tarOfOperations(layer));
    return (await importIntoBlockCims(tars, folder)).files;
  } catch (error) {
    expect(error).toMatchObject({ code: 'corrupt', message: expect.stringMatching(/nothing there|twice/) });
    return undefined;
  }
}

describe('damaged block layers', () => {
  const DAMAGED = makeLayer((layer) => {
    layer.directory('Files', { lastWriteTime: 133_000_000_000_000_000n });
    layer.file('Files/new', 'x'.repeat(600), {
      extendedAttributes: [{ name: 'A', value: Buffer.from('v') }],
    });
    layer.stream('Files/new', 'stream', 'content');
    layer.hardLink('Files/twin', 'Files/new');
    layer.hardLink('Files/lower', 'Files/file');
    layer.symlink('Files/symlink', 'C:\\target');
    layer.whiteout('Files/link');
    layer.opaque('Files/dir');
  });

  it('end in one clear error, or are whole', async () => {
    const { files } = await importIntoBlockCims([makeLayer(BASE)], directory);
    await withCims(files, async ([base]) => {
      const bit = fc.nat(DAMAGED.length * 8 - 1);
      await fc.assert(
        fc.asyncProperty(fc.array(bit, { minLength: 1, maxLength: 4 }), async (bits) => {
          const copy = Buffer.from(DAMAGED);
          for (const each of bits) copy[each >> 3]! ^= 1 << (each & 7);
          for (let block = 0; block < copy.length; block += 512) {
            if (copy.toString('latin1', block + 257, block + 262) !== 'ustar') continue;
            copy.fill(0x20, block + 148, block + 156);
            const sum = copy.subarray(block, block + 512).reduce((total, byte) => total + byte, 0);
            copy.write(`${sum.toString(8).padStart(6, '0')}\0 `, block + 148, 'latin1');
          }
          const writer = createBlockCimWriter({
            file: join(directory, 'x.bcim'),
            name: 'x',
            regionGuid: MERGED,
          });
          try {
            await importBlockLayer(inChunks(copy), writer, { lower: lowerViewOf(base!) });
            writer.finish();
          } catch (error) {
            if (!(error instanceof CimletError)) throw error;
            expect(error.message).toMatch(/offset \d+/);
          } finally {
            writer.close();
          }
        }),
        { numRuns: 150 },
      );
    });
  });
});

describe('a large block layer', () => {
  const COUNT = 30_000;

  it('takes time in proportion to its names: links in a row, hidden names, whiteouts', async () => {
    const base: Fill = (layer) => {
      for (let i = 0; i < COUNT; i++) layer.file(`Files/a/${i}`, '');
      for (let i = 0; i < COUNT; i++) layer.file(`Files/b/${i}`, '');
    };
    const upper: Fill = (layer) => {
      for (let i = 0; i < COUNT; i++) layer.hardLink(`Files/c/${i}`, `Files/c/${i + 1}`);
      layer.file(`Files/c/${COUNT}`, 'the end of the row');
      layer.opaque('Files/a');
      for (let i = 0; i < COUNT; i += 2) layer.whiteout(`Files/b/${i}`);
    };
    const { files } = await importIntoBlockCims([base, upper].map(makeLayer), directory);
    await withCims(files, (readers) => {
      const view = lowerViewOf(...readers);
      expect([...view.entries('Files/a')]).toEqual([]);
      expect([...view.entries('Files/b')]).toHaveLength(COUNT / 2);
      expect(Buffer.concat([...view.read('Files/c/0')]).toString()).toBe('the end of the row');
      let size = 0;
      for (const chunk of exportLayer(readers[0]!)) size += chunk.length;
      expect(size).toBeGreaterThan(COUNT * 512);
    });
  }, 60_000);
});

describe('random stacks', () => {
  it('show the same files as forks of each other', async () => {
    let compared = 0;
    await fc.assert(
      fc.asyncProperty(stack, async (layers) => {
        const model = expected(layers);
        fc.pre(model !== undefined && !linksForward(layers));
        const folder = mkdtempSync(join(directory, 'stack-'));
        const files = await importRandom(layers, folder);
        if (files === undefined) return;
        const shown = await withCims(files, (readers) => dumpView(lowerViewOf(...readers)));
        const plain = [...(model ?? [])].map(([path, { same, ...file }]) => [path, file]);
        expect([...onlyFiles(shown as never)]).toEqual(plain);
        for (const file of files) expect([...verifyCim(file)]).toEqual([]);
        compared++;
        rmSync(folder, { recursive: true });
      }),
      { numRuns: 60 },
    );
    expect(compared).toBeGreaterThan(10);
  });

  it('show the same wherever in their layer whiteouts stand, before or after its links', async () => {
    const files = ['a/a', 'a/b', 'b/a/a', 'b/b', 'c'].map((path) => `Files/${path}`);
    const lower = files.map((path): Operation => ({ op: 'file', path, content: path, stream: undefined }));
    const whiteout = fc.record({
      op: fc.constant('whiteout' as const),
      path: fc.constantFrom(...files, 'Files/a', 'Files/b', 'Files/b/a'),
    });
    const path = fc.constantFrom(...files, 'Files/new', 'Files/a/new', 'Files/b/new/new');
    const link = fc.record({
      op: fc.constant('hard-link' as const),
      path,
      target: fc.constantFrom(...files),
    });
    const file = path.map((at): Operation => ({ op: 'file', path: at, content: 'own', stream: undefined }));
    const changes = fc.tuple(
      fc.array(whiteout, { minLength: 1, maxLength: 3 }),
      fc.array(fc.oneof(link, link, file), { minLength: 1, maxLength: 4 }),
    );
    let compared = 0;
    const shownBy = async (upper: readonly Operation[]) => {
      const folder = mkdtempSync(join(directory, 'stack-'));
      const tars = [lower, upper].map((layer) => tarOfOperations(layer));
      const imported = await importIntoBlockCims(tars, folder).catch((error) => {
        expect(error).toMatchObject({ code: 'corrupt' });
        return undefined;
      });
      const shown = imported && (await withCims(imported.files, (cims) => dumpView(lowerViewOf(...cims))));
      rmSync(folder, { recursive: true });
      return shown && [...shown];
    };
    await fc.assert(
      fc.asyncProperty(changes, async ([whiteouts, additions]) => {
        const first = await shownBy([...whiteouts, ...additions]);
        const last = await shownBy([...additions, ...whiteouts]);
        expect(last).toEqual(first);
        if (first !== undefined) compared++;
      }),
      { numRuns: 60 },
    );
    expect(compared).toBeGreaterThan(10);
  });

  it('merge into the same files, hard links included', async () => {
    let compared = 0;
    await fc.assert(
      fc.asyncProperty(stack, async (layers) => {
        const model = expected(layers);
        fc.pre(model !== undefined && !linksForward(layers) && layers.length > 1);
        const folder = mkdtempSync(join(directory, 'stack-'));
        const files = await importRandom(layers, folder);
        if (files === undefined) return;
        const merged = join(folder, 'merged.bcim');
        const sources = [...files].reverse();
        mergeBlockCims({ file: merged, name: 'merged', regionGuid: MERGED, sources });
        publishContainer(merged);
        expect(onlyFiles(dumpCim(merged, { sources }))).toEqual(model);
        expect([...verifyCim(merged, { sources })]).toEqual([]);
        compared++;
        rmSync(folder, { recursive: true });
      }),
      { numRuns: 60 },
    );
    expect(compared).toBeGreaterThan(10);
  });
});
