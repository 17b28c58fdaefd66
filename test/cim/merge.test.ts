/** Merged CIMs: against a plain model, against the kernel's overlayfs, with the sources they need. */

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { type BlockCimWriter, createBlockCimWriter } from '../../src/cim/block-writer.ts';
import { inspectCim } from '../../src/cim/inspect.ts';
import { mergeBlockCims } from '../../src/cim/merge.ts';
import { publishContainer } from '../../src/cim/publish.ts';
import { CimReader, openCim } from '../../src/cim/reader.ts';
import { sealContainer, verifySeal } from '../../src/cim/seal.ts';
import { FileAttribute } from '../../src/cim/types.ts';
import { verifyCim } from '../../src/cim/verify.ts';
import { hasTool, isRoot, requireOrSkip } from '../support/requirements.ts';
import { containerOf, finishBlock, guidOf, listCim, withCim, writeBlock } from './block-fixture.ts';
import {
  directoryMetadata,
  patternBytes,
  putDirectory,
  putFile,
  putStream,
  temporaryDirectories,
  writeImage,
} from './fixture.ts';
import {
  type DirectoryNode,
  describeCim,
  describeModel,
  emptyDirectory,
  overlay,
  perform,
  type Step,
} from './merge-model.ts';

const temporary = temporaryDirectories();
const REPARSE = Buffer.from('0c0000a00400000074657374', 'hex');
const MERGED_GUID = 'ffffffff-0000-4000-8000-000000000000';

/** Merges sources, topmost first, into `merged.bcim`; returns the merged CIM's path. */
function merge(directory: string, sources: string[]): string {
  const file = join(directory, 'merged.bcim');
  mergeBlockCims({ file, name: 'merged', regionGuid: MERGED_GUID, sources });
  publishContainer(file);
  return join(file, 'merged.cim');
}

/** Writes layers, base first; returns their paths, topmost first, and the model of all. */
function writeLayers(directory: string, layers: Step[][]): { sources: string[]; model: DirectoryNode } {
  let model = emptyDirectory();
  const sources = layers.map((steps, n) => {
    const layer = emptyDirectory();
    const path = writeBlock(directory, n, (writer) => {
      for (const step of steps) perform(layer, writer, model, step);
    });
    model = overlay(model, layer);
    return path;
  });
  return { sources: sources.reverse(), model };
}

const name = fc.constantFrom('a', 'b', 'É', 'é');
const pathOf = (part: fc.Arbitrary<string>) =>
  fc.array(part, { minLength: 1, maxLength: 3 }).map((names) => names.join('/'));
const path = pathOf(name);
const data = fc
  .constantFrom(0, 3, 100, 4096, 5000)
  .chain((size) => fc.nat(9).map((seed) => patternBytes(size, seed)));

function stepsOn(paths: fc.Arbitrary<string>, withLinks: boolean): fc.Arbitrary<Step[]> {
  const streams: fc.Arbitrary<[string, string][]> = fc.uniqueArray(
    fc.tuple(fc.constantFrom<string>('s', 't'), fc.constantFrom('', 'one', 'x'.repeat(5000))),
    { selector: ([stream]) => stream, maxLength: 2 },
  );
  const file = fc.record({
    do: fc.constant('file' as const),
    path: paths,
    data,
    streams: withLinks ? streams : fc.constant<[string, string][]>([]),
  });
  const directory = fc.record({
    do: fc.constant('directory' as const),
    path: paths,
    time: fc.bigInt(1n, 9n),
    link: withLinks ? fc.nat(7).map((n) => n === 0) : fc.constant(false),
  });
  const tombstone = fc.record({ do: fc.constant('tombstone' as const), path: paths });
  const hardLink: fc.Arbitrary<Step> = fc.record({
    do: fc.constant('hard-link' as const),
    path: paths,
    pick: fc.nat(1000),
  });
  const mergeLink: fc.Arbitrary<Step> = fc.record({
    do: fc.constant('merge-link' as const),
    path: paths,
    pick: fc.nat(1000),
  });
  const steps: { weight: number; arbitrary: fc.Arbitrary<Step> }[] = [
    { weight: 4, arbitrary: file },
    { weight: 6, arbitrary: directory },
    { weight: 3, arbitrary: tombstone },
    ...(withLinks
      ? [
          { weight: 2, arbitrary: hardLink },
          { weight: 3, arbitrary: mergeLink },
        ]
      : []),
  ];
  return fc.array(fc.oneof(...steps), { maxLength: 25, size: 'max' });
}

describe('a merged CIM', () => {
  it('shows what a plain model of the layers shows, verifies, and comes out the same again', () => {
    fc.assert(
      fc.property(fc.array(stepsOn(path, true), { minLength: 2, maxLength: 5, size: 'max' }), (layers) => {
        const directory = temporary();
        const { sources, model } = writeLayers(directory, layers);
        const merged = merge(directory, sources);
        withCim(
          merged,
          (reader) => {
            expect(describeCim(reader)).toEqual(describeModel(model));
            expect(reader.kind).toBe('merged');
          },
          sources,
        );
        expect(verifyCim(merged, { sources })).toEqual([]);
        const bytes = readFileSync(containerOf(merged));
        expect(readFileSync(containerOf(merge(temporary(), sources))).equals(bytes)).toBe(true);
      }),
      { numRuns: 60 },
    );
  }, 180_000);

  it('follows the links of many layers to few targets, each to what is below its own', () => {
    const few = fc.constantFrom('a', 'b/a', 'b/c', 'c/b/a', 'C/B');
    fc.assert(
      fc.property(fc.array(stepsOn(few, true), { minLength: 5, maxLength: 12, size: 'max' }), (layers) => {
        const directory = temporary();
        const links = ['0/link', '1/link'].flatMap((path): Step[] =>
          [0, 1, 2].map((pick) => ({ do: 'merge-link', path: `${path}${pick}`, pick })),
        );
        const { sources, model } = writeLayers(
          directory,
          layers.map((steps, n) => [
            ...steps,
            ...links.map((link) => ({ ...link, path: `${link.path}-${n}` })),
          ]),
        );
        withCim(
          merge(directory, sources),
          (reader) => expect(describeCim(reader)).toEqual(describeModel(model)),
          sources,
        );
      }),
      { numRuns: 30 },
    );
  }, 180_000);

  it('holds no data, and keeps metadata, streams and hard links', () => {
    const directory = temporary();
    const large = patternBytes(1_000_000, 1);
    const reparseData = REPARSE;
    const base = writeBlock(directory, 0, (writer) => {
      putDirectory(writer, 'dir');
      putFile(writer, 'dir/large', large, { attributes: FileAttribute.hidden, lastWriteTime: 77n });
      putStream(writer, 'dir/large', 'big', large.subarray(7));
      putFile(writer, 'dir/link', '', { reparseData });
      writer.createHardLink('dir/again', 'dir/large');
    });
    const middle = writeBlock(directory, 1, (writer) => {
      putDirectory(writer, 'dir');
      writer.createMergeLink('dir/merged', 'DIR/again');
      writer.tombstone('dir/again');
    });
    const top = writeBlock(directory, 2, (writer) => {
      writer.createFile('Dir', directoryMetadata({ attributes: 0x12 })).close();
      putStream(writer, 'Dir', 'note', 'on the directory');
      writer.createMergeLink('Dir/third', 'dir/merged');
      writer.tombstone('Dir/merged');
    });
    const sources = [top, middle, base];
    const merged = merge(directory, sources);
    expect(statSync(containerOf(merged)).size).toBeLessThan(64 * 1024);
    const reader = openCim(merged, { sources });
    expect([...reader.walk()].map(({ path }) => path)).toEqual(['Dir', 'Dir/large', 'Dir/link', 'Dir/third']);
    const id = reader.lookup('dir/LARGE')!;
    expect(reader.lookup('dir/third')).toBe(id);
    expect(reader.stat(id)).toMatchObject({
      attributes: FileAttribute.hidden,
      lastWriteTime: 77n,
      size: large.length,
    });
    expect(Buffer.concat([...reader.streamChunks(id)]).equals(large)).toBe(true);
    expect(Buffer.concat([...reader.streamChunks(id, 'big')]).equals(large.subarray(7))).toBe(true);
    expect(reader.stat(reader.lookup('dir/link')!).reparseData).toEqual(reparseData);
    const dir = reader.lookup('dir')!;
    expect(reader.stat(dir).attributes).toBe(0x12);
    expect(Buffer.concat([...reader.streamChunks(dir, 'note')]).toString()).toBe('on the directory');
    const extent = reader.extent(id)!;
    expect(reader.regions[extent.region]!.path).toBe(containerOf(base));
    reader.close();
    expect(inspectCim(merged).container?.sources?.map(({ regionGuid }) => regionGuid)).toEqual([
      guidOf(2),
      guidOf(1),
      guidOf(0),
    ]);
    expect(inspectCim(merged).problem).toContain('it was merged from 3 CIMs and 0 are given');
    expect(inspectCim(merged, { sources }).contents?.regions).toHaveLength(10);
  });

  it('can have 128 layers, and no more', () => {
    const directory = temporary();
    const sources = Array.from({ length: 129 }, (_, n) =>
      writeBlock(directory, n, (writer) => {
        putDirectory(writer, 'dir');
        putFile(writer, `dir/own${n}`, `${n}`);
        putFile(writer, 'dir/all', `${n}`);
        if (n % 2 === 1) writer.tombstone(`dir/own${n - 1}`);
        if (n > 0) writer.createMergeLink('dir/link', n === 1 ? 'dir/own0' : 'dir/link');
      }),
    ).reverse();
    const merged = merge(directory, sources.slice(1));
    const found = withCim(merged, listCim, sources.slice(1));
    expect(Object.keys(found)).toHaveLength(1 + 64 + 2);
    expect([found['dir/all'], found['dir/link'], found['dir/own1']]).toEqual(['127', '0', '1']);
    expect(() => merge(directory, sources)).toThrow('129 sources given, 2 to 128 can be merged');
  });

  it('looks up each merge link once, though they lead to one another through all layers', () => {
    const [layers, links] = [64, 32];
    const directory = temporary();
    const sources = Array.from({ length: layers }, (_, n) =>
      writeBlock(directory, n, (writer) => {
        putDirectory(writer, 'dir');
        for (let i = 0; i < links; i++)
          if (n === 0) putFile(writer, `dir/0-${i}`, `${i}`);
          else writer.createMergeLink(`dir/${n}-${i}`, `dir/${n - 1}-${i}`);
      }),
    ).reverse();
    const find = vi.spyOn(CimReader.prototype, 'find');
    try {
      const merged = merge(directory, sources);
      // One for each link, and the directory in all layers below each.
      expect(find.mock.calls.length).toBeLessThanOrEqual(layers * links + (layers * layers) / 2);
      expect(withCim(merged, listCim, sources)).toMatchObject({ 'dir/63-31': '31', 'dir/1-7': '7' });
    } finally {
      find.mockRestore();
    }
  });

  it('lives in a container that can be sealed when its sources are', async () => {
    const directory = temporary();
    const { sources } = writeLayers(directory, [
      [{ do: 'file', path: 'a', data: patternBytes(5000, 1) }],
      [{ do: 'file', path: 'b', data: patternBytes(5000, 2) }],
    ]);
    const unsealed = merge(directory, sources);
    await expect(sealContainer(containerOf(unsealed))).rejects.toThrow(
      'merged from CIMs that are not sealed',
    );
    for (const source of sources) await sealContainer(containerOf(source));
    expect(() => openCim(unsealed, { sources })).toThrow('is sealed, and it was not');
    const merged = merge(directory, sources);
    const { rootHash } = await sealContainer(containerOf(merged));
    expect(await verifySeal(containerOf(merged), { expected: rootHash })).toEqual([]);
    openCim(merged, { sources, rootHash }).close();
    // A flipped bit of a source's data is met when it is read through the merged CIM.
    const file = containerOf(sources[0]!);
    const bytes = readFileSync(file);
    bytes[8192 + 17]! ^= 4;
    writeFileSync(file, bytes);
    withCim(
      merged,
      (reader) => {
        expect(() => [...reader.streamChunks(reader.lookup('b')!)]).toThrow('the seal is broken');
        expect(Buffer.concat([...reader.streamChunks(reader.lookup('a')!)]).length).toBe(5000);
      },
      sources,
    );
    expect(verifyCim(merged, { sources })).not.toEqual([]);
  });

  it('can be interrupted', () => {
    const directory = temporary();
    const { sources } = writeLayers(directory, [[], []]);
    const file = join(directory, 'merged.bcim');
    const checkpoint = () => {
      throw new Error('stop');
    };
    const options = { file, name: 'merged', regionGuid: MERGED_GUID, sources, checkpoint };
    expect(() => mergeBlockCims(options)).toThrow('stop');
    expect(readdirSync(directory).sort()).toEqual(['layer0.bcim', 'layer1.bcim']);
  });
});

describe('merging refuses', () => {
  const three = (directory: string) => writeLayers(directory, [[], [], []]).sources;

  it('what cannot be merged', async () => {
    const directory = temporary();
    const [top, middle, base] = three(directory) as [string, string, string];
    const merged = merge(directory, [top, middle, base]);
    writeImage(directory, 0, () => undefined);
    const twin = join(temporary(), 'twin.bcim');
    finishBlock(createBlockCimWriter({ file: twin, name: 'layer', regionGuid: guidOf(2) }), () => undefined);
    publishContainer(twin);
    const refused: [string[], string][] = [
      [[top], '1 sources given'],
      [[merged, top], 'it was merged from 3 CIMs'],
      [[top, join(directory, 'image0.cim')], 'is a forked CIM'],
      [[top, top], 'have the same region GUID'],
      [[top, twin], 'have the same region GUID'],
    ];
    for (const [sources, message] of refused)
      expect(() => merge(directory, sources), message).toThrow(
        expect.objectContaining({ code: 'failed-precondition', message: expect.stringContaining(message) }),
      );
    expect(() => merge(directory, [top, join(directory, 'none.bcim/layer.cim')])).toThrow(
      expect.objectContaining({ code: 'not-found' }),
    );
    await sealContainer(containerOf(base));
    expect(() => merge(directory, [top, base])).toThrow('is sealed, the other is not');
    const options = { name: 'm', file: join(directory, 'm.bcim'), sources: [top, middle] };
    expect(() => mergeBlockCims({ ...options, regionGuid: guidOf(1) })).toThrow('the same region GUID');
  });

  it('a merge link without a file in the layers below', () => {
    const cases: [(n: number, writer: Parameters<Parameters<typeof writeBlock>[2]>[0]) => void, string][] = [
      [
        (n, writer) => n === 1 && writer.createMergeLink('l', 'a'),
        'merge link l: the layers below have no file "a"',
      ],
      [(n, writer) => writer.createMergeLink(`l${n}`, `l${1 - n}`), 'have no file "l'],
      [
        (n, writer) => (n === 0 ? putDirectory(writer, 'a') : writer.createMergeLink('l', 'a')),
        'no file "a"',
      ],
      [
        (n, writer) => {
          // Not in the layers below, though in its own.
          if (n === 1) putFile(writer, 'a', 'a');
          if (n === 1) writer.createMergeLink('l', 'a');
        },
        'no file "a"',
      ],
    ];
    for (const [write, message] of cases) {
      const directory = temporary();
      const sources = [1, 0].map((n) => writeBlock(directory, n, (writer) => write(n, writer)));
      expect(() => merge(directory, sources)).toThrow(
        expect.objectContaining({ code: 'corrupt', message: expect.stringContaining(message) }),
      );
      expect(readdirSync(directory).sort()).toEqual(['layer0.bcim', 'layer1.bcim']);
    }
  });

  it('a merge link to a file that a layer in between hides', () => {
    const hidden: [string, (writer: BlockCimWriter) => void][] = [
      ['a tombstone', (writer) => writer.tombstone('dir')],
      [
        'a tombstone of the file',
        (writer) => {
          putDirectory(writer, 'dir');
          writer.tombstone('dir/file');
        },
      ],
      [
        'an opaque directory',
        (writer) => {
          putDirectory(writer, 'dir');
          writer.tombstone('dir');
        },
      ],
      ['a file', (writer) => putFile(writer, 'dir', '')],
      [
        'a directory that is a link',
        (writer) => writer.createFile('dir', directoryMetadata({ reparseData: REPARSE })).close(),
      ],
      [
        'a directory in place of the file',
        (writer) => {
          putDirectory(writer, 'dir');
          putDirectory(writer, 'dir/file');
        },
      ],
    ];
    for (const [what, hide] of hidden) {
      const directory = temporary();
      const base = writeBlock(directory, 0, (writer) => {
        putDirectory(writer, 'dir');
        putFile(writer, 'dir/file', '');
      });
      const middle = writeBlock(directory, 1, hide);
      const top = writeBlock(directory, 2, (writer) => writer.createMergeLink('link', 'dir/file'));
      expect(() => merge(directory, [top, middle, base]), what).toThrow('no file "dir/file"');
      expect(withCim(merge(directory, [top, base]), listCim, [top, base]).link, what).toBe('');
    }
  });

  it('to be opened without the sources it was made from, in their order', () => {
    const directory = temporary();
    const sources = three(directory);
    const [top, middle, base] = sources as [string, string, string];
    const merged = merge(directory, sources);
    const other = writeBlock(directory, 9, () => undefined);
    const refused: [string[] | undefined, string][] = [
      [undefined, 'it was merged from 3 CIMs and 0 are given'],
      [[], 'it was merged from 3 CIMs and 0 are given'],
      [[top, middle], 'it was merged from 3 CIMs and 2 are given'],
      [[top, middle, base, other], '3 CIMs and 4 are given'],
      [[base, middle, top], 'is given as source 1 and was number 3'],
      [[top, middle, other], 'it was not merged from'],
      [[top, middle, middle], 'is given as source 3 and was number 2'],
    ];
    for (const [given, message] of refused)
      expect(() => openCim(merged, { sources: given }), message).toThrow(
        expect.objectContaining({ code: 'failed-precondition', message: expect.stringContaining(message) }),
      );
    expect(() => openCim(top, { sources: [middle] })).toThrow('takes no sources');
  });

  it('to be opened with a source that was changed since', () => {
    const directory = temporary();
    const sources = three(directory);
    const merged = merge(directory, sources);
    const file = containerOf(sources[1]!);
    const before = readFileSync(file);
    writeBlock(directory, 1, (writer) => putFile(writer, 'a', 'a'));
    expect(() => openCim(merged, { sources })).toThrow('has changed since');
    writeFileSync(file, before);
    openCim(merged, { sources }).close();
    // Same size, one bit of the metadata: the third part, behind data and small data.
    const metadata = before.indexOf(
      Buffer.from('cimfile0'),
      before.indexOf(Buffer.from('cimfile0'), 8192) + 8,
    );
    const flipped = Buffer.from(before);
    flipped[metadata + 100]! ^= 1;
    writeFileSync(file, flipped);
    expect(() => openCim(merged, { sources })).toThrow('does not have its digest');
  });
});

const canOverlay = requireOrSkip(
  'root, mount and setfattr',
  isRoot && hasTool('mount') && hasTool('setfattr'),
);

describe.runIf(canOverlay)("the kernel's overlayfs over the same layers", () => {
  // The kernel tells cases apart, so names here differ in more; it merges neither links nor times.
  const lower = pathOf(fc.constantFrom('a', 'b'));

  /** Puts a layer as it is into a directory of the kernel's. */
  function extract(cim: string, target: string): void {
    withCim(cim, (reader) => {
      for (const { path, id } of reader.walk()) {
        const { mark, isDirectory } = reader.stat(id);
        const to = join(target, path);
        if (mark?.kind === 'tombstone') execFileSync('mknod', [to, 'c', '0', '0']);
        else if (isDirectory) mkdirSync(to);
        else writeFileSync(to, Buffer.concat([...reader.streamChunks(id)]));
        if (mark?.kind === 'opaque')
          execFileSync('setfattr', ['-n', 'trusted.overlay.opaque', '-v', 'y', to]);
      }
    });
  }

  function listDirectory(directory: string): Record<string, string> {
    const found: Record<string, string> = {};
    for (const entry of readdirSync(directory, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name);
      // Where nothing is merged, the kernel lists a whiteout's name; there is nothing, though.
      if (!existsSync(path)) continue;
      found[path.slice(directory.length + 1)] = entry.isDirectory() ? '/' : readFileSync(path, 'latin1');
    }
    return found;
  }

  it('shows the same tree', () => {
    fc.assert(
      fc.property(fc.array(stepsOn(lower, false), { minLength: 2, maxLength: 4, size: 'max' }), (layers) => {
        const directory = temporary();
        const { sources } = writeLayers(directory, layers);
        const merged = withCim(merge(directory, sources), listCim, sources);
        const disk = join(directory, 'disk');
        const mounted = join(directory, 'mounted');
        for (const path of [disk, mounted]) mkdirSync(path);
        execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', disk]);
        try {
          sources.forEach((source, n) => {
            mkdirSync(join(disk, `${n}`));
            extract(source, join(disk, `${n}`));
          });
          const stack = sources.map((_, n) => join(disk, `${n}`)).join(':');
          execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', `ro,lowerdir=${stack}`, mounted]);
          try {
            expect(listDirectory(mounted)).toEqual(merged);
          } finally {
            execFileSync('umount', [mounted]);
          }
        } finally {
          execFileSync('umount', [disk]);
        }
      }),
      { numRuns: 25 },
    );
  }, 120_000);
});

const canLoop = requireOrSkip('root and losetup', isRoot && hasTool('losetup'));

describe.runIf(canLoop)('block devices', () => {
  it('can be merged with each other only, and are not the files they came from', () => {
    const directory = temporary();
    const { sources: files } = writeLayers(directory, [
      [{ do: 'file', path: 'a', data: patternBytes(5000, 1) }],
      [{ do: 'file', path: 'b', data: patternBytes(100, 2) }],
    ]);
    const devices: string[] = [];
    try {
      for (const file of files)
        devices.push(
          execFileSync('losetup', ['-f', '-r', '--show', containerOf(file)], { encoding: 'utf8' }).trim(),
        );
      const sources = devices.map((device) => join(device, 'layer.cim'));
      const merged = merge(directory, sources);
      expect(withCim(merged, (reader) => [...reader.walk()].length, sources)).toBe(2);
      expect(() => openCim(merged, { sources: files })).toThrow(
        'is in a file, and it was merged from devices',
      );
      expect(() => merge(directory, [files[0]!, sources[1]!])).toThrow('is in a device');
    } finally {
      for (const device of devices) execFileSync('losetup', ['-d', device]);
    }
  });
});
