/** Backup streams: what is written is read again, however it comes, and what is none is said to be none. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  BackupStreamId,
  BackupStreamReader,
  encodeMetadataStreams,
  encodeStreamHeader,
} from '../../src/layers/backup-stream.ts';

/** Gives the bytes in pieces of a size, as a file or BackupRead might. */
function readerOf(bytes: Uint8Array, piece = 7): BackupStreamReader {
  let at = 0;
  return new BackupStreamReader((buffer) => {
    const chunk = bytes.subarray(at, at + Math.min(piece, buffer.length));
    buffer.set(chunk);
    at += chunk.length;
    return chunk.length;
  }, 'a file');
}

describe('backup streams', () => {
  it('have the layout of WIN32_STREAM_ID', () => {
    const header = encodeStreamHeader(BackupStreamId.alternateData, 5, ':a:$DATA');
    const name = Buffer.from(':a:$DATA', 'utf16le').toString('hex');
    expect(header.toString('hex')).toBe(`04000000${'00000000'}0500000000000000${'10000000'}${name}`);
    const metadata = {
      attributes: 0,
      size: 0,
      creationTime: 0n,
      lastWriteTime: 0n,
      changeTime: 0n,
      lastAccessTime: 0n,
    };
    const security = encodeMetadataStreams({ ...metadata, securityDescriptor: Buffer.from([1, 2]) });
    expect(security.toString('hex')).toBe(`03000000000000000200000000000000000000000102`);
    expect(encodeMetadataStreams({ ...metadata, extendedAttributes: new Uint8Array() })).toHaveLength(0);
  });

  it('are read as they were written, whether their bytes are looked at or skipped', () => {
    const stream = fc.record({
      id: fc.constantFrom(1, 2, 3, 4, 8, 9),
      name: fc.constantFrom('', ':x:$DATA', ':ä:$DATA'),
      bytes: fc.uint8Array({ maxLength: 40 }),
      isRead: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(stream, { maxLength: 6 }), fc.integer({ min: 1, max: 64 }), (streams, piece) => {
        const all = streams.flatMap(({ id, name, bytes }) => [
          encodeStreamHeader(id, bytes.length, name),
          bytes,
        ]);
        const reader = readerOf(Buffer.concat(all), piece);
        for (const { id, name, bytes, isRead } of streams) {
          expect(reader.next()).toEqual({ id, attributes: 0, size: bytes.length, name });
          if (isRead) expect(Buffer.concat([...reader.chunks()])).toEqual(Buffer.from(bytes));
        }
        expect(reader.next()).toBeUndefined();
      }),
    );
  });

  it.each([
    ['a header that is cut short', Buffer.alloc(11, 1), /no valid header.*before byte 11/],
    [
      'a negative size',
      Buffer.concat([Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]), Buffer.alloc(8, 0xff), Buffer.alloc(4)]),
      /no valid header/,
    ],
    [
      'a name that is too long',
      Buffer.concat([Buffer.alloc(16), Buffer.from([0, 0, 1, 0])]),
      /no valid header/,
    ],
    [
      'bytes that are missing',
      Buffer.concat([encodeStreamHeader(1, 9), Buffer.from('four')]),
      /cut short.*before byte 24/,
    ],
  ])('refuse %s, and say where', (_, bytes, message) => {
    const reader = readerOf(bytes);
    const readAll = () => {
      while (reader.next() !== undefined)
        for (const chunk of reader.chunks()) expect(chunk.length).toBeGreaterThan(0);
    };
    expect(readAll).toThrow(message);
  });

  it('keep whoever takes bytes within the stream', () => {
    const reader = readerOf(Buffer.concat([encodeStreamHeader(3, 4), Buffer.from('four')]));
    reader.next();
    expect(() => reader.take(5)).toThrow('less than 5 bytes left');
    expect(reader.take(4).toString()).toBe('four');
    expect(reader.left).toBe(0);
  });
});
