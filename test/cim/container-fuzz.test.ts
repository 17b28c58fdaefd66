/** Containers that someone made wrong on purpose: every checksum is right, what it stands for is not. */

import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { diffCims } from '../../src/cim/diff.ts';
import { inspectCim } from '../../src/cim/inspect.ts';
import { mergeBlockCims } from '../../src/cim/merge.ts';
import { publishContainer } from '../../src/cim/publish.ts';
import { openCim } from '../../src/cim/reader.ts';
import { verifyCim } from '../../src/cim/verify.ts';
import { CimletError } from '../../src/errors.ts';
import { containerOf, writeBlock } from './block-fixture.ts';
import { patternBytes, putDirectory, putFile, putStream, temporaryDirectories } from './fixture.ts';

const temporary = temporaryDirectories();
const MERGED_GUID = 'ffffffff-0000-4000-8000-000000000000';
const sha256 = (data: Buffer) => createHash('sha256').update(data).digest();

interface Part {
  at: number;
  offset: number;
  length: number;
  isData: boolean;
}

function partsOf(bytes: Buffer): { directory: number; length: number; parts: Part[] } {
  const directory = Number(bytes.readBigUInt64LE(16));
  const length = Number(bytes.readBigUInt64LE(24));
  const start = directory + 16 + 4 + bytes.readUInt16LE(directory + 16);
  const parts = Array.from({ length: bytes.readUInt16LE(directory + 18) }, (_, i) => {
    const at = start + i * 56;
    return {
      at,
      offset: Number(bytes.readBigUInt64LE(at + 8)),
      length: Number(bytes.readBigUInt64LE(at + 16)),
      isData: bytes[at] === 1 && bytes[at + 1] === 1,
    };
  });
  return { directory, length, parts };
}

/** Makes every digest right again, for what is where `partsOf` the unchanged container said. */
function sign(
  bytes: Buffer,
  { directory, length, parts }: ReturnType<typeof partsOf>,
  withParts: boolean,
): void {
  if (withParts)
    for (const part of parts)
      if (!part.isData)
        sha256(bytes.subarray(part.offset, part.offset + part.length)).copy(bytes, part.at + 24);
  sha256(bytes.subarray(directory, directory + length)).copy(bytes, 32);
  sha256(bytes.subarray(0, 480)).copy(bytes, 480);
}

function writeSamples(directory: string): string[] {
  const base = writeBlock(directory, 0, (writer) => {
    putDirectory(writer, 'dir');
    putFile(writer, 'dir/large', patternBytes(5000, 1));
    putFile(writer, 'dir/small', 'small', { reparseData: Buffer.from('0c0000a00400000074657374', 'hex') });
    putStream(writer, 'dir/small', 'stream', 'aside');
  });
  const top = writeBlock(directory, 1, (writer) => {
    putDirectory(writer, 'dir');
    writer.createMergeLink('link', 'dir/large');
    writer.tombstone('dir/small');
    putFile(writer, 'own', 'own');
  });
  return [top, base];
}

function merge(directory: string, sources: string[]): string {
  const file = join(directory, 'merged.bcim');
  mergeBlockCims({ file, name: 'merged', regionGuid: MERGED_GUID, sources });
  publishContainer(file);
  return join(file, 'merged.cim');
}

/** Whatever an action does to bad content, it ends, and in nothing worse than a CimletError. */
function survive(action: () => unknown): void {
  try {
    action();
  } catch (error) {
    if (!(error instanceof CimletError)) throw error;
  }
}

function readAll(path: string, sources?: string[]): void {
  const reader = openCim(path, { sources });
  try {
    for (const { id } of reader.walk())
      if (!reader.isDirectory(id))
        for (const chunk of reader.streamChunks(id)) expect(chunk.length).toBeGreaterThan(0);
  } finally {
    reader.close();
  }
}

const edit = fc.record({
  // Not fc.double, which is nearly always close to its ends.
  at: fc.nat(999_999).map((n) => n / 1_000_000),
  value: fc.oneof(fc.nat(255), fc.constantFrom(0, 1, 0x7f, 0x80, 0xff)),
});

describe('a container made wrong on purpose', () => {
  const directory = () => {
    const place = temporary();
    const sources = writeSamples(place);
    return { sources, merged: merge(place, sources) };
  };

  it('in its directory, is refused or read, and nothing worse', () => {
    const { sources, merged } = directory();
    for (const path of [sources[1]!, merged]) {
      const file = containerOf(path);
      const good = readFileSync(file);
      const parts = partsOf(good);
      fc.assert(
        fc.property(fc.array(edit, { minLength: 1, maxLength: 4 }), (edits) => {
          const bytes = Buffer.from(good);
          for (const { at, value } of edits) bytes[parts.directory + Math.floor(at * parts.length)] = value;
          sign(bytes, parts, false);
          writeFileSync(file, bytes);
          const given = path === merged ? sources : undefined;
          survive(() => readAll(path, given));
          survive(() => verifyCim(path, { sources: given }));
          survive(() => inspectCim(path, { sources: given }));
        }),
        { numRuns: 150 },
      );
      writeFileSync(file, good);
    }
  }, 120_000);

  it('in its metadata, image header or source list, is refused, merged or read, and nothing worse', () => {
    const { sources, merged } = directory();
    for (const path of [...sources, merged]) {
      const file = containerOf(path);
      const good = readFileSync(file);
      const parts = partsOf(good);
      // All parts but the data and, within the metadata, the upcase table: what lies close to a part's beginning or end.
      const places = parts.parts
        .filter(({ isData }) => !isData)
        .flatMap(({ offset, length }) => [
          { start: offset, length: Math.min(length, 1200) },
          { start: offset + Math.max(0, length - 5200), length: Math.min(length, 5200) },
        ]);
      fc.assert(
        fc.property(
          fc.array(fc.tuple(fc.constantFrom(...places), edit), { minLength: 1, maxLength: 4 }),
          (edits) => {
            const bytes = Buffer.from(good);
            for (const [{ start, length }, { at, value }] of edits)
              bytes[start + Math.floor(at * length)] = value;
            sign(bytes, parts, true);
            writeFileSync(file, bytes);
            const given = path === merged ? sources : undefined;
            survive(() => readAll(path, given));
            survive(() => verifyCim(path, { sources: given }));
            survive(() => {
              const reader = openCim(path, { sources: given });
              const other = openCim(sources[0]!);
              try {
                for (const { path } of diffCims(reader, other)) expect(typeof path).toBe('string');
              } finally {
                reader.close();
                other.close();
              }
            });
            if (path !== merged) survive(() => merge(temporary(), sources));
          },
        ),
        { numRuns: 120 },
      );
      writeFileSync(file, good);
    }
  }, 180_000);
});
