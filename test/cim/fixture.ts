import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach } from 'vitest';
import type { ImageWriter } from '../../src/cim/image-writer.ts';
import { publishCim } from '../../src/cim/publish.ts';
import { type CimReader, openCim } from '../../src/cim/reader.ts';
import { FileAttribute, type FileMetadata } from '../../src/cim/types.ts';
import { type CimWriter, createCimWriter, type FinishedCim } from '../../src/cim/writer.ts';

/** Registers a cleanup and returns a maker of temporary directories. */
export function temporaryDirectories(): () => string {
  const made: string[] = [];
  afterEach(() => {
    for (const directory of made.splice(0)) rmSync(directory, { recursive: true, force: true });
  });
  return () => {
    const directory = mkdtempSync(join(tmpdir(), 'cimlet-cim-'));
    made.push(directory);
    return directory;
  };
}

export const GUIDS = [
  '00112233-4455-6677-8899-aabbccddeeff',
  '11111111-1111-4111-8111-111111111111',
  '22222222-2222-4222-8222-222222222222',
  '33333333-3333-4333-8333-333333333333',
] as const;

export function fileMetadata(size: number, more: Partial<FileMetadata> = {}): FileMetadata {
  return {
    attributes: 0,
    size,
    creationTime: 1n,
    lastWriteTime: 2n,
    changeTime: 3n,
    lastAccessTime: 4n,
    ...more,
  };
}

export function directoryMetadata(more: Partial<FileMetadata> = {}): FileMetadata {
  return fileMetadata(0, { attributes: FileAttribute.directory, ...more });
}

export function putDirectory(writer: ImageWriter, path: string): void {
  writer.createFile(path, directoryMetadata()).close();
}

export function putFile(
  writer: ImageWriter,
  path: string,
  data: Uint8Array | string,
  more?: Partial<FileMetadata>,
): void {
  const bytes = Buffer.from(data);
  const stream = writer.createFile(path, fileMetadata(bytes.length, more));
  stream.write(bytes);
  stream.close();
}

export function putStream(writer: ImageWriter, path: string, name: string, data: Uint8Array | string): void {
  const bytes = Buffer.from(data);
  const stream = writer.createAlternateStream(path, name, bytes.length);
  stream.write(bytes);
  stream.close();
}

/** Writes and publishes an image: number `n` has the n-th GUID; from 1 on it forks image `n - 1`, unless told. */
export function writeImage(
  directory: string,
  n: number,
  write: (writer: CimWriter) => void,
  parent: string | undefined = n === 0 ? undefined : `image${n - 1}`,
): FinishedCim {
  const regionGuid = GUIDS[n]!;
  const writer = createCimWriter({ directory, name: `image${n}`, regionGuid, parent });
  try {
    write(writer);
    const finished = writer.finish();
    publishCim(directory, `image${n}`, regionGuid);
    return finished;
  } finally {
    writer.close();
  }
}

export function withReader<T>(directory: string, n: number, read: (reader: CimReader) => T): T {
  const reader = openCim(join(directory, `image${n}.cim`));
  try {
    return read(reader);
  } finally {
    reader.close();
  }
}

export function readAll(reader: CimReader, id: number, stream?: string): Buffer {
  return Buffer.concat([...reader.streamChunks(id, stream)]);
}

export function readPath(reader: CimReader, path: string, stream?: string): string {
  return readAll(reader, reader.lookup(path)!, stream).toString();
}

/** Bytes that no other seed gives and that aren't zero. */
export function patternBytes(size: number, seed: number): Buffer {
  const bytes = Buffer.alloc(size, `${seed}.`);
  if (size >= 4) bytes.writeUInt32LE(seed + 1, 0);
  return bytes;
}
