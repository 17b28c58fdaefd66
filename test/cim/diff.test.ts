import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { BlockCimWriter } from '../../src/cim/block-writer.ts';
import { type CimDifference, diffCims } from '../../src/cim/diff.ts';
import { openCim } from '../../src/cim/reader.ts';
import { FileAttribute } from '../../src/cim/types.ts';
import { listCim, withCim, writeBlock } from './block-fixture.ts';
import {
  directoryMetadata,
  patternBytes,
  putDirectory,
  putFile,
  putStream,
  temporaryDirectories,
  writeImage,
} from './fixture.ts';
import { HandMadeImage } from './hand-made.ts';

const temporary = temporaryDirectories();

function diff(a: string, b: string): CimDifference[] {
  return withCim(a, (first) => withCim(b, (second) => [...diffCims(first, second)]));
}

function diffOf(a: (writer: BlockCimWriter) => void, b: (writer: BlockCimWriter) => void) {
  const directory = temporary();
  return diff(writeBlock(directory, 0, a), writeBlock(directory, 1, b));
}

function sample(writer: BlockCimWriter): void {
  putDirectory(writer, 'dir');
  putFile(writer, 'dir/file', 'data');
  putStream(writer, 'dir/file', 'stream', 'aside');
  putFile(writer, 'large', patternBytes(600_000, 1));
}

const EA = Buffer.from('000000000001010041004200', 'hex');
const REPARSE = Buffer.from('0c0000a00400000074657374', 'hex');

describe('diffCims', () => {
  it('finds nothing between images that hold the same, however they are stored', () => {
    expect(diffOf(sample, sample)).toEqual([]);
    const directory = temporary();
    const block = writeBlock(directory, 0, sample);
    writeImage(directory, 0, (writer) => {
      putFile(writer, 'large', patternBytes(600_000, 1));
      putDirectory(writer, 'dir');
      putFile(writer, 'dir/file', 'data');
      putStream(writer, 'dir/file', 'stream', 'aside');
    });
    expect(diff(block, join(directory, 'image0.cim'))).toEqual([]);
  });

  const changes: [string, (writer: BlockCimWriter) => void, Partial<CimDifference>[]][] = [
    ['a file added', (writer) => putFile(writer, 'new', ''), [{ path: 'new', change: 'added', what: [] }]],
    [
      'data',
      (writer) => putFile(writer, 'large', patternBytes(600_000, 2)),
      [{ path: 'large', what: ['data'] }],
    ],
    ['size', (writer) => putFile(writer, 'large', 'small'), [{ path: 'large', what: ['size'] }]],
    [
      'the last byte',
      (writer) =>
        putFile(writer, 'large', Buffer.concat([patternBytes(600_000, 1).subarray(0, -1), Buffer.from([0])])),
      [{ path: 'large', what: ['data'] }],
    ],
    [
      'spelling',
      (writer) => putFile(writer, 'LARGE', patternBytes(600_000, 1)),
      [{ path: 'LARGE', what: ['name'] }],
    ],
    [
      'a stream',
      (writer) => putStream(writer, 'DIR/file', 'STREAM', 'aside'),
      [{ path: 'dir/file', what: ['stream stream'] }],
    ],
    [
      'a stream added',
      (writer) => putStream(writer, 'dir', 'new', ''),
      [{ path: 'dir', what: ['stream new'] }],
    ],
    [
      'metadata',
      (writer) =>
        putFile(writer, 'large', patternBytes(600_000, 1), {
          attributes: FileAttribute.hidden,
          creationTime: 9n,
          changeTime: 9n,
          reparseData: REPARSE,
          extendedAttributes: EA,
          securityDescriptor: Buffer.from(
            '0100048000000000000000000000000014000000020008000000000000000000',
            'hex',
          ).subarray(0, 28),
        }),
      [
        {
          path: 'large',
          what: [
            'attributes',
            'creationTime',
            'changeTime',
            'reparseTag',
            'securityDescriptor',
            'extendedAttributes',
            'reparseData',
          ],
        },
      ],
    ],
    [
      "a directory's metadata",
      (writer) => writer.createFile('dir', directoryMetadata({ lastWriteTime: 5n })).close(),
      [{ path: 'dir', what: ['lastWriteTime'] }],
    ],
    [
      'marks',
      (writer) => {
        writer.tombstone('dir');
        writer.createMergeLink('link', 'x');
      },
      [
        { path: 'dir', what: ['mark'] },
        { path: 'link', change: 'added' },
      ],
    ],
    [
      "the root's metadata",
      (writer) => writer.createFile('', directoryMetadata()).close(),
      [{ path: '', change: 'changed' }],
    ],
  ];
  it.each(changes)('finds %s', (_what, change, expected) => {
    const found = diffOf(sample, (writer) => {
      sample(writer);
      change(writer);
    });
    expect(found).toMatchObject(expected);
    expect(found).toHaveLength(expected.length);
  });

  it('finds what became something else, and whose names came apart', () => {
    const links = (writer: BlockCimWriter) => {
      putFile(writer, 'a', 'a');
      writer.createHardLink('b', 'a');
      putDirectory(writer, 'kind');
      putFile(writer, 'kind/below', '');
      writer.createMergeLink('link', 'x');
    };
    const copies = (writer: BlockCimWriter) => {
      putFile(writer, 'a', 'a');
      putFile(writer, 'b', 'a');
      putFile(writer, 'kind', '');
      writer.createMergeLink('link', 'y');
    };
    const expected = [
      { path: 'b', what: ['hard links'] },
      { path: 'kind', what: ['type'] },
      { path: 'link', what: ['mark'] },
    ];
    expect(diffOf(links, copies)).toMatchObject(expected);
    expect(diffOf(copies, links)).toMatchObject(expected);
  });

  it('agrees with a plain comparison of random trees', () => {
    const entry = fc.tuple(
      fc.constantFrom('a', 'b', 'c'),
      fc.constantFrom('x', 'y'),
      fc.constantFrom('', '1', '22'),
    );
    const tree = fc.array(entry, { maxLength: 6 });
    const write = (files: [string, string, string][]) => (writer: BlockCimWriter) => {
      for (const [directory, name, data] of files) {
        putDirectory(writer, directory);
        putFile(writer, `${directory}/${name}`, data);
      }
    };
    fc.assert(
      fc.property(tree, tree, (left, right) => {
        const directory = temporary();
        const [a, b] = [writeBlock(directory, 0, write(left)), writeBlock(directory, 1, write(right))];
        const [before, after] = [withCim(a, listCim), withCim(b, listCim)];
        const isTop = (path: string, other: Record<string, string>) =>
          !path.includes('/') || other[path.split('/')[0]!] !== undefined;
        const expected = [
          ...Object.keys(before)
            .filter((path) => !(path in after) && isTop(path, after))
            .map((path) => `removed ${path}`),
          ...Object.keys(after)
            .filter((path) => !(path in before) && isTop(path, before))
            .map((path) => `added ${path}`),
          ...Object.keys(after)
            .filter((path) => path in before && before[path] !== after[path])
            .map((path) => `changed ${path}`),
        ];
        expect(
          diff(a, b)
            .map(({ change, path }) => `${change} ${path}`)
            .sort(),
        ).toEqual(expected.sort());
      }),
      { numRuns: 50 },
    );
  });

  it.each<[string, [name: string, id: number][]]>([
    ['a cycle', [['LOOP', 2]]],
    [
      'a directory of two parents',
      [
        ['A', 1],
        ['B', 1],
      ],
    ],
  ])('refuses %s instead of comparing without end', (_what, links) => {
    const image = new HandMadeImage(88);
    image.addDirectory([]);
    const path = image.write(temporary(), image.addDirectory(links));
    let steps = 0;
    const checkpoint = () => {
      if (++steps > 1000) throw new Error('no end');
    };
    withCim(path, (first) =>
      withCim(path, (second) =>
        expect(() => [...diffCims(first, second, { checkpoint })]).toThrow(/directory \w+ is reached twice/),
      ),
    );
  });

  it('can be stopped', () => {
    const path = writeBlock(temporary(), 0, sample);
    const reader = openCim(path);
    const checkpoint = () => {
      throw new Error('stop');
    };
    expect(() => [...diffCims(reader, reader, { checkpoint })]).toThrow('stop');
    reader.close();
  });
});
