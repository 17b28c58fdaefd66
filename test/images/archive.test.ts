import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { DiffId, Digest } from '../../src/hosts/host.ts';
import { resolveArchive } from '../../src/images/archive.ts';
import { openLayerStream } from '../../src/images/decode.ts';
import { TarWriter } from '../../src/tar/tar-writer.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cimlet-archive-'));
});
afterEach(() => rm(directory, { recursive: true }));

const signal = new AbortController().signal;

function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

function makeTar(content: string): Buffer {
  const chunks: Uint8Array[] = [];
  const writer = new TarWriter((bytes) => chunks.push(Uint8Array.from(bytes)));
  writer.file({ name: 'Files/a', mtime: 0n }, Buffer.from(content));
  writer.finish();
  return Buffer.concat(chunks);
}

async function write(bytes: Uint8Array, name = 'layer'): Promise<string> {
  const file = join(directory, name);
  await writeFile(file, bytes);
  return file;
}

const tar = makeTar('content '.repeat(500_000));

describe('resolving an archive', () => {
  it.each([
    ['plain', tar, ''],
    ['gzip', gzipSync(tar), '+gzip'],
    [
      'gzip of two members',
      Buffer.concat([gzipSync(tar.subarray(0, 700)), gzipSync(tar.subarray(700))]),
      '+gzip',
    ],
    ['zstd', zstdCompressSync(tar), '+zstd'],
  ])('finds digest and diff ID: %s', async (_name, bytes, suffix) => {
    const file = await write(bytes);
    const found = await resolveArchive(file, undefined, signal);
    expect(found).toEqual({
      diffId: sha256(tar),
      blob: {
        file,
        offset: 0,
        size: bytes.length,
        digest: sha256(bytes),
        mediaType: `application/vnd.oci.image.layer.v1.tar${suffix}`,
      },
    });
    expect(await resolveArchive(file, sha256(bytes) as Digest, signal)).toEqual(found);
    const chunks: Buffer[] = [];
    for await (const chunk of openLayerStream(found.blob, { diffId: found.diffId as DiffId }))
      chunks.push(chunk);
    expect(Buffer.concat(chunks).equals(tar)).toBe(true);
  });

  it('takes an empty tar', async () => {
    expect((await resolveArchive(await write(Buffer.alloc(1024)), undefined, signal)).blob.size).toBe(1024);
  });

  it('refuses another digest than the one asked for, naming both', async () => {
    const file = await write(tar);
    const other = sha256(Buffer.from('other')) as Digest;
    await expect(resolveArchive(file, other, signal)).rejects.toMatchObject({
      code: 'corrupt',
      message: `read archive ${file}: expected digest ${other}, found ${sha256(tar)}`,
    });
  });

  it.each([
    ['an empty file', Buffer.alloc(0), /holds no tar/],
    ['text', Buffer.from('this is no tar\n'.repeat(100)), /holds no tar/],
    ['compressed text', gzipSync('this is no tar\n'.repeat(100)), /holds no tar/],
    ['a truncated gzip', gzipSync(tar).subarray(0, 2000), /gzip data is damaged near offset/],
    ['a truncated zstd', zstdCompressSync(tar).subarray(0, 200), /zstd data/],
    ['garbage after gzip', Buffer.concat([gzipSync(tar), Buffer.from('garbage')]), /after the end|damaged/],
  ])('refuses %s', async (_name, bytes, message) => {
    const file = await write(bytes);
    await expect(resolveArchive(file, undefined, signal)).rejects.toMatchObject({
      code: 'corrupt',
      message: expect.stringMatching(message),
    });
    await expect(resolveArchive(file, undefined, signal)).rejects.toThrow(`read archive ${file}: `);
  });

  it('names what is not there or not a file', async () => {
    const gone = join(directory, 'gone');
    await expect(resolveArchive(gone, undefined, signal)).rejects.toMatchObject({
      code: 'not-found',
      hint: 'a path in a manifest starts at its folder, one on the command line at the working folder',
    });
    await mkdir(gone);
    await expect(resolveArchive(gone, undefined, signal)).rejects.toMatchObject({
      code: 'failed-precondition',
      message: `read archive ${gone}: not a file`,
    });
  });

  it('stops when asked', async () => {
    const file = await write(tar);
    await expect(resolveArchive(file, undefined, AbortSignal.abort())).rejects.toMatchObject({
      code: 'cancelled',
    });
  });
});
