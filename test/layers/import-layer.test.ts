import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CimletError } from '../../src/errors.ts';
import { importLayer } from '../../src/layers/import-layer.ts';
import type { LayerTarWriter } from '../../src/layers/layer-tar.ts';
import type { TarEntry } from '../../src/tar/tar-writer.ts';
import { MemoryCimWriter } from '../support/memory-cim-writer.ts';
import { hasTool, requireOrSkip } from '../support/requirements.ts';
import {
  dumpMemory,
  importIntoCims,
  importStack,
  inChunks,
  makeLayer,
  run,
  tarOf,
} from '../tar/tar-helpers.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cimlet-layer-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const BASE = makeLayer((layer) => {
  layer.directory('Files', { lastWriteTime: 133_000_000_000_000_000n });
  layer.directory('Files/dir');
  layer.file('Files/dir/a', 'lower a');
  layer.file('Files/dir/b', 'lower b');
  layer.directory('Files/dir/sub');
  layer.file('Files/dir/sub/deep', 'lower deep');
  layer.symlink('Files/link', 'dir');
  layer.file('Files/file', 'lower file');
  layer.hardLink('Files/twin', 'Files/file');
});

/** Paths below Files/ after the given layers over BASE, in memory and in real CIMs (which must agree). */
async function filesAfter(...fills: ((layer: LayerTarWriter) => void)[]): Promise<Record<string, string>> {
  const layers = [BASE, ...fills.map(makeLayer)];
  const { writer } = await importStack(layers);
  const memory = dumpMemory(writer);
  expect(await importIntoCims(layers, directory)).toEqual(memory);
  const files = [...memory].filter(([path]) => path.startsWith('Files/'));
  return Object.fromEntries(files.map(([path, file]) => [path.slice(6), file.content]));
}

async function failure(layers: Uint8Array[]): Promise<CimletError> {
  try {
    await importStack(layers);
  } catch (error) {
    if (error instanceof CimletError) return error;
    throw error;
  }
  throw new Error('the layers were accepted');
}

const LOWER = {
  dir: '',
  'dir/a': 'lower a',
  'dir/b': 'lower b',
  'dir/sub': '',
  'dir/sub/deep': 'lower deep',
  file: 'lower file',
  link: 'dir',
  twin: 'lower file',
};

describe('layers over one another', () => {
  it('an empty layer changes nothing', async () => {
    expect(await filesAfter(() => undefined)).toEqual(LOWER);
  });

  it('a whiteout removes a file, a tree, a link; a missing path is fine', async () => {
    const result = await filesAfter((layer) => {
      layer.whiteout('Files/dir/sub');
      layer.whiteout('Files/FILE');
      layer.whiteout('Files/link');
      layer.whiteout('Files/nothing');
      layer.whiteout('Files/file/below');
      layer.whiteout('Files/link/below');
    });
    expect(result).toEqual({ dir: '', 'dir/a': 'lower a', 'dir/b': 'lower b', twin: 'lower file' });
  });

  it.each(['before', 'after'])('a whiteout spares what the same layer adds (%s)', async (order) => {
    const marker = (layer: LayerTarWriter) => {
      layer.whiteout('Files/dir');
      layer.whiteout('Files/file');
    };
    const result = await filesAfter((layer) => {
      if (order === 'before') marker(layer);
      layer.directory('Files/dir');
      layer.file('Files/dir/new', 'new');
      layer.file('Files/dir/a', 'new a');
      layer.file('Files/file', 'new file');
      if (order === 'after') marker(layer);
    });
    expect(result).toEqual({
      dir: '',
      'dir/new': 'new',
      'dir/a': 'new a',
      file: 'new file',
      link: 'dir',
      twin: 'lower file',
    });
  });

  it.each(['before', 'after', 'between'])('an opaque marker hides lower content only (%s)', async (order) => {
    const result = await filesAfter((layer) => {
      if (order === 'before') layer.opaque('Files/dir');
      layer.file('Files/dir/sub/new', 'new');
      if (order === 'between') layer.opaque('Files/dir');
      layer.file('Files/dir/b', 'new b');
      layer.hardLink('Files/dir/c', 'Files/dir/b');
      if (order === 'after') layer.opaque('Files/dir');
    });
    expect(result).toEqual({
      dir: '',
      'dir/sub': '',
      'dir/sub/new': 'new',
      'dir/b': 'new b',
      'dir/c': 'new b',
      file: 'lower file',
      link: 'dir',
      twin: 'lower file',
    });
  });

  it('an opaque marker makes its directory', async () => {
    expect(await filesAfter((layer) => layer.opaque('Files/new/dir'))).toEqual({
      ...LOWER,
      new: '',
      'new/dir': '',
    });
  });

  it('a file replaces a directory, a directory a file, either a link', async () => {
    const result = await filesAfter((layer) => {
      layer.file('Files/dir', 'now a file');
      layer.directory('Files/file');
      layer.file('Files/file/x', 'x');
      layer.directory('Files/link');
      layer.symlink('Files/twin', 'C:\\elsewhere');
    });
    expect(result).toEqual({ dir: 'now a file', file: '', 'file/x': 'x', link: '', twin: 'C:\\elsewhere' });
  });

  it('replacing a file leaves its other names alone; a link to a lower file works', async () => {
    const result = await filesAfter(
      (layer) => layer.file('Files/file', 'new file'),
      (layer) => {
        layer.hardLink('Files/dir/twin', 'Files/TWIN');
        layer.hardLink('Files/twin', 'Files/file');
      },
    );
    expect(result).toMatchObject({ file: 'new file', twin: 'new file', 'dir/twin': 'lower file' });
  });

  it('a link finds a lower file until that is taken away, and stays where one was', async () => {
    const result = await filesAfter((layer) => {
      layer.hardLink('Files/kept', 'Files/dir/a');
      layer.whiteout('Files/dir');
      layer.whiteout('Files/link');
      layer.hardLink('Files/link', 'Files/kept');
      layer.hardLink('Files/file', 'Files/kept');
      layer.whiteout('Files/file');
    });
    expect(result).toEqual({ file: 'lower a', kept: 'lower a', link: 'lower a', twin: 'lower file' });
    const gone = makeLayer((layer) => {
      layer.whiteout('Files/dir');
      layer.hardLink('Files/kept', 'Files/dir/a');
    });
    expect((await failure([BASE, gone])).message).toMatch(/there is no such file in this layer or below/);
  });

  it('a directory given again keeps what is in it', async () => {
    expect(await filesAfter((layer) => layer.directory('Files/DIR', { attributes: 2 }))).toEqual({
      ...Object.fromEntries(Object.entries(LOWER).map(([path, text]) => [path.replace(/^dir/, 'DIR'), text])),
    });
  });

  it('within a layer the last entry of a name wins', async () => {
    const result = await filesAfter((layer) => {
      layer.file('Files/x', 'first');
      layer.file('Files/x', 'second');
      layer.directory('Files/y');
      layer.file('Files/y/z', 'z');
      layer.file('Files/y', 'a file');
      layer.file('Files/v', 'a file');
      layer.directory('Files/v');
    });
    expect(result).toEqual({ ...LOWER, x: 'second', y: 'a file', v: '' });
  });

  it('alternate streams follow their file, and go with it', async () => {
    const layer = makeLayer((tar) => {
      tar.file('Files/a', 'main');
      tar.stream('Files/a', 'one', 'first');
      tar.stream('Files/a', 'two:$DATA', 'second');
      tar.directory('Files/d');
      tar.stream('Files/d', 'of a directory', '');
    });
    const { writer, results } = await importStack([layer]);
    expect(
      Object.fromEntries([...writer.find('Files/a')!.streams].map(([name, data]) => [name, `${data}`])),
    ).toEqual({
      one: 'first',
      two: 'second',
    });
    expect([...writer.find('Files/d')!.streams.keys()]).toEqual(['of a directory']);
    expect(results[0]).toMatchObject({ files: 3, bytes: 15 });
    expect((await importIntoCims([layer], directory)).get('Files/a')?.streams).toEqual([
      'one=first',
      'two=second',
    ]);
  });

  it('directories that only paths imply take the time of the first entry below', async () => {
    const layer = makeLayer((tar) => {
      tar.file('Files/a/b/c', 'x', { lastWriteTime: 133_000_000_000_000_000n });
      tar.file('Files/a/d', 'x', { lastWriteTime: 134_000_000_000_000_000n });
    });
    const { writer } = await importStack([layer]);
    for (const path of ['Files', 'Files/a', 'Files/a/b']) {
      expect(writer.stat(path)).toMatchObject({
        attributes: 0x10,
        lastWriteTime: 133_000_000_000_000_000n,
        creationTime: 133_000_000_000_000_000n,
      });
    }
    const { writer: over } = await importStack([
      BASE,
      makeLayer((tar) => tar.file('Files/new', 'x', { lastWriteTime: 1n })),
    ]);
    expect(over.stat('Files')?.lastWriteTime).toBe(133_000_000_000_000_000n);
  });
});

describe('base layers', () => {
  const hives = ['SYSTEM', 'SOFTWARE', 'SAM', 'SECURITY', 'DEFAULT'];
  const withHives = (names: string[]) =>
    makeLayer((layer) => {
      for (const name of names) layer.file(`Files/Windows/System32/config/${name}`, `hive ${name}`);
    });

  it('get hives as hard links, and the layout file', async () => {
    const { writer, results } = await importStack([withHives(hives)]);
    expect(results[0]?.warnings).toEqual([]);
    expect(writer.text('layout')).toBe('vhd-with-hives\n');
    expect(writer.paths().filter((path) => path.startsWith('Hives/'))).toEqual(
      ['DEFAULTUSER', 'SAM', 'SECURITY', 'SOFTWARE', 'SYSTEM'].map((name) => `Hives/${name}_BASE`),
    );
    expect(writer.find('Hives/DEFAULTUSER_BASE')).toBe(writer.find('Files/Windows/System32/config/DEFAULT'));
  });

  it('without hives get a warning', async () => {
    const { writer, results } = await importStack([BASE]);
    expect(results[0]?.warnings).toEqual([
      'base layer has no registry hives in Files/Windows/System32/config: no Hives/*_BASE',
    ]);
    expect(writer.paths().filter((path) => !path.startsWith('Files'))).toEqual(['Hives', 'layout']);
  });

  it('with some hives are refused', async () => {
    expect((await failure([withHives(hives.slice(0, 3))])).message).toBe(
      'base layer has some registry hives in Files/Windows/System32/config, but not SECURITY, DEFAULT',
    );
  });

  it('upper layers keep deltas, with a warning, and get no layout', async () => {
    const delta = makeLayer((layer) => layer.file('Hives/SYSTEM_DELTA', 'delta'));
    const { writer, results } = await importStack([withHives(hives), delta]);
    expect(results[1]?.warnings).toEqual(['registry deltas are kept but not merged yet: Hives/SYSTEM_DELTA']);
    expect(writer.text('Hives/SYSTEM_DELTA')).toBe('delta');
    expect(writer.text('Hives/SYSTEM_BASE')).toBe('hive SYSTEM');
  });
});

describe('hostile layers', () => {
  const file = (name: string, content = ''): TarEntry & { content: string } => ({
    name,
    type: 'file',
    content,
  });

  it.each<[string, (TarEntry & { content?: string })[], string]>([
    ['a path out of the root', [file('Files/a/../../../etc/passwd')], "the path has a '..' component"],
    ['an absolute path', [file('/etc/passwd')], 'the path is absolute'],
    [
      'a hard link out of the root',
      [{ name: 'Files/l', type: 'hard-link', linkName: '../../etc/shadow' }],
      "'..'",
    ],
    [
      'a hard link to nothing',
      [{ name: 'Files/l', type: 'hard-link', linkName: 'Files/none' }],
      'hard link to "Files/none": there is no such file in this layer or below',
    ],
    [
      'a hard link to a directory',
      [
        { name: 'Files/d', type: 'directory' },
        { name: 'Files/l', type: 'hard-link', linkName: 'Files/d' },
      ],
      'there is no such file',
    ],
    [
      'a hard link to itself',
      [file('Files/l'), { name: 'Files/l', type: 'hard-link', linkName: 'Files/L' }],
      'to itself',
    ],
    [
      'a hard link that replaces the directory its target is in',
      [file('Files/d/x'), { name: 'Files/d', type: 'hard-link', linkName: 'Files/d/x' }],
      'there is no such file',
    ],
    [
      'names that differ only in case',
      [file('Files/dir/Name'), file('Files/dir/NAME')],
      'case collision: "Files/dir/Name" and "Files/dir/NAME" are one name on Windows',
    ],
    ['non-ASCII names that differ only in case', [file('Files/ä'), file('Files/Ä')], 'case collision'],
    [
      'directories that differ only in case',
      [file('Files/dir/a'), file('Files/DIR/b')],
      'case collision: "Files/dir" and "Files/DIR"',
    ],
    [
      'an entry below a file',
      [file('Files/a'), file('Files/a/b')],
      '"Files/a" is a file, nothing can be below it',
    ],
    [
      'an entry below a symlink',
      [{ name: 'Files/a', type: 'symlink', linkName: '/etc' }, file('Files/a/passwd')],
      '"Files/a" is a symlink or mount point, nothing can be below it',
    ],
    [
      'an opaque marker below a symlink',
      [{ name: 'Files/a', type: 'symlink', linkName: '/etc' }, file('Files/a/.wh..wh..opq')],
      'symlink or mount point',
    ],
    ['an entry below a lower file', [file('Files/file/x')], '"Files/file" is a file'],
    ['an entry below a lower symlink', [file('Files/link/x')], '"Files/link" is a symlink'],
    ['a device', [{ name: 'Files/null', type: 'character-device' }], 'a character device'],
    ['a stream without a file', [file('Files/a:s')], 'an alternate stream must follow its file, "Files/a"'],
    [
      'a stream of another file',
      [file('Files/a'), file('Files/b'), file('Files/a:s')],
      'must follow its file',
    ],
    [
      'a stream twice',
      [file('Files/a'), file('Files/a:s'), file('Files/a:S:$DATA')],
      'has a stream of that name already',
    ],
    ['a file as a root', [file('Files')], '"Files" must be a directory'],
    [
      'a symlink as a root',
      [{ name: 'UtilityVM', type: 'symlink', linkName: '/' }],
      '"UtilityVM" must be a directory',
    ],
    ['a Linux layer', [file('etc/passwd')], 'a Windows layer holds only'],
  ])('%s', async (_, entries, message) => {
    const error = await failure([BASE, tarOf(...entries)]);
    expect(error.code).toBe('corrupt');
    expect(error.message).toContain(message);
    expect(error.message).toMatch(/^tar entry ".*" at offset \d+: /);
  });

  it('symlinks may point anywhere: they are data, and nobody follows them', async () => {
    const { writer } = await importStack([
      tarOf({ name: 'Files/l', type: 'symlink', linkName: '../../../../etc/shadow' }),
    ]);
    expect(dumpMemory(writer).get('Files/l')?.content).toBe('..\\..\\..\\..\\etc\\shadow');
  });

  it('a size that lies is a truncated stream', async () => {
    const tar = makeLayer((layer) => layer.file('Files/a', 'x'.repeat(5000)));
    expect((await failure([tar.subarray(0, 3000)])).message).toContain(
      'bytes missing): the stream is truncated',
    );
  });

  it('a path 3,000 directories deep, then an opaque marker above it', async () => {
    const path = `Files${'/d'.repeat(3000)}`;
    const layer = makeLayer((tar) => {
      tar.file(`${path}/x`, 'deep');
      tar.opaque('Files');
    });
    const { writer } = await importStack([makeLayer((tar) => tar.file(`${path}/y`, 'lower')), layer]);
    expect(writer.text(`${path}/x`)).toBe('deep');
    expect(writer.find(`${path}/y`)).toBeUndefined();
  });

  it('100,000 names in one directory, hidden again by a marker', async () => {
    const base = makeLayer((tar) => {
      for (let i = 0; i < 100_000; i++) tar.file(`Files/many/entry ${i}`, '');
    });
    const { writer, results } = await importStack([
      base,
      makeLayer((tar) => {
        tar.file('Files/many/mine', '');
        // Each further marker must cost nothing.
        for (let i = 0; i < 10_000; i++) tar.opaque('Files/many');
      }),
    ]);
    expect(results[0]?.files).toBe(100_002);
    expect(writer.paths()).toEqual(['Files', 'Files/many', 'Files/many/mine', 'Hives', 'layout']);
  });
});

describe('streams', () => {
  it('in pieces of any size give the same', async () => {
    const whole = dumpMemory((await importStack([BASE])).writer);
    for (const size of [1, 100, 511, 513])
      expect(dumpMemory((await importStack([BASE], size)).writer)).toEqual(whole);
  });

  it('are read to the end, after the archive too', async () => {
    let consumed = 0;
    const padded = Buffer.concat([BASE, Buffer.alloc(200_000)]);
    async function* counted() {
      for await (const chunk of inChunks(padded, 1000)) {
        consumed += chunk.length;
        yield chunk;
      }
    }
    await importLayer(counted(), new MemoryCimWriter(), { isBase: true });
    expect(consumed).toBe(padded.length);
  });

  it('can be cancelled, and their source is told', async () => {
    const abort = new AbortController();
    let returned = false;
    async function* endless() {
      try {
        for (;;) yield Buffer.alloc(512);
      } finally {
        returned = true;
      }
    }
    const names: string[] = [];
    const chunks = async function* () {
      yield BASE;
      abort.abort();
      yield* endless();
    };
    const running = importLayer(chunks(), new MemoryCimWriter(), {
      isBase: true,
      signal: abort.signal,
      onEntry: (name) => names.push(name),
    });
    await expect(running).rejects.toMatchObject({ code: 'cancelled' });
    expect(returned).toBe(true);
    expect(names).toContain('Files/dir/sub/deep');
  });

  it('what the writer throws passes through, with the entry when the layer is to blame', async () => {
    const full = new MemoryCimWriter();
    full.createFile = () => {
      throw new CimletError('no-space', 'write region: no space left');
    };
    await expect(importLayer(inChunks(BASE), full, { isBase: true })).rejects.toMatchObject({
      code: 'no-space',
    });
    const strict = new MemoryCimWriter();
    strict.createFile = (path) => {
      throw new CimletError('corrupt', `create ${path}: bad name`);
    };
    await expect(importLayer(inChunks(BASE), strict, { isBase: true })).rejects.toMatchObject({
      code: 'corrupt',
      message: 'tar entry "Files/" at offset 0: create Files: bad name',
    });
  });
});

it.runIf(requireOrSkip('tar', hasTool('tar')))('a layer made by GNU tar on Linux', async () => {
  run(
    'sh',
    [
      '-c',
      'mkdir -p Files/d && echo text > Files/d/ä && ln Files/d/ä Files/hard && ln -s d/ä Files/soft && chmod 0400 Files/d/ä',
    ],
    { cwd: directory },
  );
  const tar = run('tar', ['--format=posix', '--sort=name', '-cf', '-', './Files'], { cwd: directory });
  const { writer } = await importStack([tar]);
  expect(Object.fromEntries(dumpMemory(writer))).toMatchObject({
    'Files/d': { kind: 'directory' },
    'Files/d/ä': { kind: 'file', content: 'text\n', same: 'Files/d/ä' },
    'Files/hard': { kind: 'file', same: 'Files/d/ä' },
    'Files/soft': { kind: 'link', content: 'd\\ä' },
  });
  expect(writer.stat('Files/d/ä')?.attributes).toBe(0);
});
