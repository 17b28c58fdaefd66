import { createHash, randomBytes } from 'node:crypto';
import { readdirSync, readlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CimletError, isErrorCode } from '../../src/errors.ts';
import type { DiffId, Digest, LayerBlob } from '../../src/hosts/host.ts';
import { type LayerStreamOptions, openLayerStream } from '../../src/images/decode.ts';
import { makeTemporaryDirectory, sha256, writeBlob } from '../support/stored-blob.ts';

const small = Buffer.from('one layer, honest\n'.repeat(500));
/** Several chunks, half of it incompressible. */
const large = Buffer.concat([
  randomBytes(1 << 20),
  Buffer.alloc(1 << 20, 'zeros and ones'),
  randomBytes(12_345),
]);
const skippable = Buffer.concat([Buffer.from([0x5c, 0x2a, 0x4d, 0x18, 10, 0, 0, 0]), Buffer.alloc(10, 1)]);

async function collect(blob: LayerBlob, options: LayerStreamOptions): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of openLayerStream(blob, options)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function failure(blob: LayerBlob, options: LayerStreamOptions): Promise<CimletError> {
  const error = await collect(blob, options).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof CimletError) return error;
  throw new Error(`expected a CimletError, got ${String(error)}`);
}

function openDescriptorsOf(file: string): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === file;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
      throw error;
    }
  }).length;
}

describe('content', () => {
  const cut = 500_000;
  const forms: [string, (content: Buffer) => Buffer][] = [
    ['plain', (content) => content],
    ['gzip', (content) => gzipSync(content)],
    ['gzip of two members', (c) => Buffer.concat([gzipSync(c.subarray(0, cut)), gzipSync(c.subarray(cut))])],
    ['zstd', (content) => zstdCompressSync(content)],
    [
      'zstd of many frames, some skippable, as zstd:chunked has',
      (content) => {
        const frames = Array.from({ length: Math.ceil(content.length / cut) }, (_, i) =>
          zstdCompressSync(content.subarray(i * cut, (i + 1) * cut)),
        );
        return Buffer.concat([skippable, ...frames.flatMap((frame) => [frame, skippable])]);
      },
    ],
  ];

  describe.each(forms)('%s', (_, encode) => {
    it.each([
      ['small', small],
      ['large', large],
      ['empty', Buffer.alloc(0)],
    ])('yields the %s tar that went in', async (_size, content) => {
      const blob = writeBlob(makeTemporaryDirectory(), encode(content));
      const found = await collect(blob, { diffId: sha256(content) });
      expect(found.equals(content)).toBe(true);
    });

    it('reads a part of a file', async () => {
      const encoded = encode(large);
      const blob = writeBlob(makeTemporaryDirectory(), encoded);
      writeFileSync(
        blob.file,
        Buffer.concat([Buffer.alloc(777, 'before'), encoded, Buffer.alloc(99, 'after')]),
      );
      const found = await collect({ ...blob, offset: 777 }, { diffId: sha256(large) });
      expect(found.equals(large)).toBe(true);
    });
  });

  it('checks sha512 digests', async () => {
    const digest = `sha512:${createHash('sha512').update(small).digest('hex')}` as Digest & DiffId;
    const blob = { ...writeBlob(makeTemporaryDirectory(), small), digest };
    expect(await collect(blob, { diffId: digest })).toEqual(small);
    const wrong = `sha512:${'0'.repeat(128)}` as Digest & DiffId;
    expect((await failure({ ...blob, digest: wrong }, { diffId: wrong })).message).toContain(digest);
  });

  it('reports every byte of the blob as progress', async () => {
    const blob = writeBlob(makeTemporaryDirectory(), gzipSync(large));
    const seen: number[] = [];
    await collect(blob, { diffId: sha256(large), onProgress: (done, total) => seen.push(done, total) });
    expect(seen.slice(-2)).toEqual([blob.size, blob.size]);
    expect(seen.filter((_, i) => i % 2 === 0)).toEqual(
      [...seen.filter((_, i) => i % 2 === 0)].sort((a, b) => a - b),
    );
  });
});

describe('what is wrong is said once everything was read', () => {
  it('a digest that does not match', async () => {
    const content = gzipSync(small);
    const digest = sha256(Buffer.from('something else'));
    const blob = { ...writeBlob(makeTemporaryDirectory(), content), digest };
    const error = await failure(blob, { diffId: sha256(small) });
    expect(error.code).toBe('corrupt');
    expect(error.message).toContain(`expected digest ${digest}, found ${sha256(content)}`);
    expect(error.hint).toBeDefined();
  });

  it('a diff ID that does not match', async () => {
    const diffId = sha256(Buffer.from('something else'));
    const error = await failure(writeBlob(makeTemporaryDirectory(), gzipSync(small)), { diffId });
    expect(error.code).toBe('corrupt');
    expect(error.message).toContain(`expected diff ID ${diffId}, found ${sha256(small)}`);
  });

  it('a plain blob whose diff ID is its digest', async () => {
    const digest = sha256(Buffer.from('something else'));
    const error = await failure(
      { ...writeBlob(makeTemporaryDirectory(), small), digest },
      { diffId: digest },
    );
    expect(error.message).toContain(`found ${sha256(small)}`);
  });

  it('a file that is gone', async () => {
    const blob = { ...writeBlob(makeTemporaryDirectory(), small), file: '/nonexistent/blob' };
    expect((await failure(blob, { diffId: sha256(small) })).code).toBe('not-found');
  });
});

const compressors: [string, (content: Buffer) => Buffer][] = [
  ['gzip', (content) => gzipSync(content)],
  ['zstd', (content) => zstdCompressSync(content)],
];

describe.each(compressors)('a damaged %s blob', (_, compress) => {
  const content = Buffer.concat([randomBytes(3000), Buffer.alloc(3000, 'abc')]);
  const whole = compress(content);
  const diffId = sha256(content);

  it('cut off anywhere is corrupt, whether the size or the content tells', async () => {
    const directory = makeTemporaryDirectory();
    for (let length = 0; length < whole.length; length += length < 40 ? 1 : 97) {
      const blob = writeBlob(directory, whole);
      truncateSync(blob.file, length);
      const shorter = await failure(blob, { diffId });
      expect(shorter.code).toBe('corrupt');
      const honest = await failure(writeBlob(directory, whole.subarray(0, length)), { diffId });
      expect(honest.code).toBe('corrupt');
    }
  });

  it.each([
    ['zeros', Buffer.alloc(20)],
    ['text', Buffer.from('and then some')],
    ['a magic number alone', whole.subarray(0, 4)],
    ['zeros, then text', Buffer.concat([Buffer.alloc(600), Buffer.from('hidden')])],
  ])('followed by %s is corrupt', async (_name, tail) => {
    const blob = writeBlob(makeTemporaryDirectory(), Buffer.concat([whole, tail]));
    const error = await failure(blob, { diffId });
    expect(error.code).toBe('corrupt');
    expect(error.message).toMatch(/offset \d+/);
  });

  it('with any bit flipped is corrupt', async () => {
    const directory = makeTemporaryDirectory();
    await fc.assert(
      fc.asyncProperty(fc.nat(whole.length * 8 - 1), async (bit) => {
        const bytes = Buffer.from(whole);
        bytes[bit >> 3]! ^= 1 << (bit & 7);
        const blob = { ...writeBlob(directory, bytes), digest: sha256(whole) };
        expect((await failure(blob, { diffId })).code).toBe('corrupt');
      }),
      { numRuns: 150 },
    );
  });

  it('of garbage behind the magic number never fails with anything but corrupt', async () => {
    const directory = makeTemporaryDirectory();
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (garbage) => {
        const blob = writeBlob(directory, Buffer.concat([whole.subarray(0, 4), garbage]));
        expect((await failure(blob, { diffId })).code).toBe('corrupt');
      }),
      { numRuns: 150 },
    );
  });
});

describe.each([['plain', (content: Buffer) => content] as const, ...compressors])(
  'leaving a %s stream',
  (_, encode) => {
    it('early closes the file', async () => {
      const blob = writeBlob(makeTemporaryDirectory(), encode(large));
      for await (const chunk of openLayerStream(blob, { diffId: sha256(large) })) {
        expect(chunk.length).toBeGreaterThan(0);
        break;
      }
      expect(openDescriptorsOf(blob.file)).toBe(0);
    });

    it('by abort is `cancelled` and closes the file', async () => {
      const blob = writeBlob(makeTemporaryDirectory(), encode(large));
      const controller = new AbortController();
      const onProgress = () => controller.abort();
      const error = await failure(blob, { diffId: sha256(large), signal: controller.signal, onProgress });
      expect(isErrorCode(error, 'cancelled')).toBe(true);
      expect(openDescriptorsOf(blob.file)).toBe(0);
    });

    it('before it began is `cancelled`', async () => {
      const blob = writeBlob(makeTemporaryDirectory(), encode(large));
      expect((await failure(blob, { diffId: sha256(large), signal: AbortSignal.abort() })).code).toBe(
        'cancelled',
      );
    });
  },
);
