import { constants, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { isZstd, ZstdFrameWalker } from '../../src/images/zstd-frames.ts';

const frame = fc
  .record({
    size: fc.constantFrom(0, 1, 255, 256, 65_791, 65_792, 300_000),
    fill: fc.constantFrom('a', 'one layer, honest'),
    checksum: fc.nat(1),
    contentSize: fc.nat(1),
  })
  .map(({ size, fill, checksum, contentSize }) =>
    zstdCompressSync(Buffer.alloc(size, fill), {
      params: { [constants.ZSTD_c_checksumFlag]: checksum, [constants.ZSTD_c_contentSizeFlag]: contentSize },
    }),
  );
const skippable = fc.tuple(fc.nat(15), fc.uint8Array({ maxLength: 300 })).map(([nibble, content]) => {
  const header = Buffer.alloc(8);
  header.writeUInt32LE(0x184d2a50 + nibble, 0);
  header.writeUInt32LE(content.length, 4);
  return Buffer.concat([header, content]);
});

/** Offsets where the walker stands between frames, when fed `bytes` in chunks of `chunkSize`. */
function frameEnds(bytes: Buffer, chunkSize: number): number[] {
  const walker = new ZstdFrameWalker();
  const ends: number[] = [];
  for (let begin = 0; begin < bytes.length; begin += chunkSize) {
    const chunk = bytes.subarray(begin, begin + chunkSize);
    let at = 0;
    while (at < chunk.length) {
      at = walker.walk(chunk, at)!;
      if (walker.betweenFrames) ends.push(begin + at);
    }
  }
  return ends;
}

it('finds the end of every frame, however the stream is cut into chunks', () => {
  fc.assert(
    fc.property(
      fc.array(fc.oneof(frame, skippable), { minLength: 1, maxLength: 6 }),
      fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 10, max: 1 << 20 })),
      (frames, chunkSize) => {
        const ends = frames.map((_, i) =>
          frames.slice(0, i + 1).reduce((total, { length }) => total + length, 0),
        );
        expect(frames.every(isZstd)).toBe(true);
        expect(frameEnds(Buffer.concat(frames), chunkSize)).toEqual(ends);
      },
    ),
  );
});

it('says so where no frame begins', () => {
  expect(new ZstdFrameWalker().walk(Buffer.from('not zstd'), 0)).toBeUndefined();
  expect(isZstd(Buffer.from('not zstd'))).toBe(false);
});
