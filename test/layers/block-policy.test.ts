import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openCim } from '../../src/cim/reader.ts';
import { FileAttribute } from '../../src/cim/types.ts';
import { verifyCim } from '../../src/cim/verify.ts';
import { CimletError } from '../../src/errors.ts';
import type { ImportResult } from '../../src/layers/import-layer.ts';
import type { LayerTarWriter } from '../../src/layers/layer-tar.ts';
import { lowerViewOf } from '../../src/layers/lower-view.ts';
import { dumpView, importIntoBlockCims, withCims } from './block-layers.ts';
import { expected, type Operation, onlyFiles, stack, tarOfOperations } from './stack-model.ts';
import { makeLayer } from './tar-helpers.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cimlet-block-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

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

/** A link to a file that the same layer adds later means another file in a block CIM than in a fork. */
function linksForward(layers: readonly Operation[][]): boolean {
  return layers.some((layer) =>
    layer.some(
      (operation, index) =>
        operation.op === 'hard-link' &&
        layer
          .slice(index + 1)
          .some(({ path }) => operation.target.startsWith(path) || operation.path.startsWith(path)),
    ),
  );
}

describe('random stacks', () => {
  it('show the same files as forks of each other', async () => {
    let compared = 0;
    await fc.assert(
      fc.asyncProperty(stack, async (layers) => {
        const model = expected(layers);
        fc.pre(model !== undefined && !linksForward(layers));
        const folder = mkdtempSync(join(directory, 'stack-'));
        let files: string[];
        try {
          ({ files } = await importIntoBlockCims(
            layers.map((layer) => tarOfOperations(layer)),
            folder,
          ));
        } catch (error) {
          // What only block layers are refused for.
          expect(error).toMatchObject({
            code: 'corrupt',
            message: expect.stringMatching(/nothing there|twice/),
          });
          return;
        }
        const shown = await withCims(files, (readers) => dumpView(lowerViewOf(...readers)));
        const plain = [...(model ?? [])].map(([path, { kind, content, streams }]) => [
          path,
          { kind, content, streams },
        ]);
        expect([...onlyFiles(shown as never)]).toEqual(plain);
        for (const file of files) expect([...verifyCim(file)]).toEqual([]);
        compared++;
        rmSync(folder, { recursive: true });
      }),
      { numRuns: 100 },
    );
    expect(compared).toBeGreaterThan(20);
  });
});
