import { closeSync, writeSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { alias, array, C, layoutOf, library, out, pointerTo, struct } from '../../src/native/library.ts';

const { int, int32, int64, pointer, size_t, str, uint8, uint16, void: none } = C;

describe('library', () => {
  it('loads nothing before the first call, and then names what is missing', () => {
    const missing = library('no-such-library.so', { anything: [int, []] });
    expect(() => missing.call('anything')).toThrow(
      expect.objectContaining({
        code: 'unsupported-host',
        message: expect.stringContaining('no-such-library.so') as unknown,
      }),
    );
    const partial = library(null, { no_such_function: [int, []], abs: [int, [int]] });
    expect(partial.call('abs', -5).value).toBe(5);
    expect(() => partial.call('no_such_function')).toThrow(
      expect.objectContaining({
        code: 'unsupported-host',
        message: expect.stringContaining('no_such_function in the C library') as unknown,
      }),
    );
  });

  it('says what a library lacks without calling anything', () => {
    const partial = library(null, {
      no_such_function: [int, []],
      abs: [int, [int]],
      wrong: [int, [], 'nope'],
    });
    expect(partial.missing()).toEqual(['no_such_function', 'wrong']);
    expect(() => library('no-such-library.so', { abs: [int, [int]] }).missing()).toThrow(
      'load no-such-library.so: not on this system',
    );
  });

  it('lays structs out with natural alignment', () => {
    const Inner = struct('Inner', { tag: uint16, large: int64 });
    expect(layoutOf(Inner)).toEqual({ size: 16, offsets: { tag: 0, large: 8 } });
    const Outer = struct('Outer', { first: uint8, list: array(Inner, 3), last: pointerTo(Inner) });
    expect(layoutOf(Outer)).toEqual({ size: 64, offsets: { first: 0, list: 8, last: 56 } });
  });

  describe.runIf(process.platform === 'linux')('with the C library', () => {
    const libc = library(null, {
      rmdir: [int, [str]],
      removeDirectory: [int, [str], 'rmdir'],
    });

    it('gives the errno of the very call, also of calls under way together', async () => {
      expect(libc.call('rmdir', '/no/such/path')).toEqual({ value: -1, errno: 2 });
      const paths = ['/no/such/path', '/proc/self/status/x', '/', '/proc/self/exe'];
      const expected = paths.map((path) => libc.call('rmdir', path).errno);
      expect(new Set(expected).size).toBeGreaterThan(2);
      const found = await Promise.all(
        Array.from({ length: 200 }, (_, index) => libc.callAsync('rmdir', paths[index % paths.length])),
      );
      expect(found.map(({ errno }) => errno)).toEqual(
        found.map((_, index) => expected[index % expected.length]),
      );
    });

    const Pair = struct('Pair', { first: uint8, second: alias('COUNT', int64) });
    const copy = library(null, {
      toPair: [none, [out(Pair), pointer, size_t], 'memcpy'],
      toNumber: [none, [out(int32), pointer, size_t], 'memcpy'],
      fromText: [none, [pointer, C.str16, size_t], 'memcpy'],
      fromPairs: [none, [pointer, pointerTo(Pair), size_t], 'memcpy'],
    });

    it('gives what a function writes, and arrays of structs to it', () => {
      const bytes = Buffer.alloc(16);
      bytes.writeUInt8(7, 0);
      bytes.writeBigInt64LE(-(2n ** 60n), 8);
      const pair = {};
      copy.call('toPair', pair, bytes, 16);
      expect(pair).toEqual({ first: 7, second: -(2n ** 60n) });
      const number = [0];
      copy.call('toNumber', number, Buffer.from([0, 0, 1, 0]), 4);
      expect(number).toEqual([65536]);
      const target = Buffer.alloc(32);
      copy.call('fromPairs', target, [pair, { first: 1, second: 2 }], 32);
      expect(target.subarray(8, 16)).toEqual(bytes.subarray(8));
      expect(target.readBigInt64LE(24)).toBe(2n);
    });

    it('gives a part of a buffer as that part', () => {
      const target = {};
      const whole = Buffer.alloc(48, 1);
      whole.writeBigInt64LE(9n, 40);
      copy.call('toPair', target, whole.subarray(32), 16);
      expect(target).toEqual({ first: 1, second: 9 });
    });

    it('keeps what an asynchronous call was given until it is done', async () => {
      setFlagsFromString('--expose-gc');
      const collect = runInNewContext('gc') as () => void;
      const { pipe, read } = { pipe: [int, [pointer]], read: [C.long, [int, pointer, size_t]] } as const;
      const calls = library(null, { pipe, read });
      const ends = Buffer.alloc(8);
      expect(calls.call('pipe', ends).value).toBe(0);
      const [from, to] = [ends.readInt32LE(0), ends.readInt32LE(4)];
      const begin = () => {
        const target = Buffer.alloc(1 << 20);
        return { given: new WeakRef(target), done: calls.callAsync('read', from, target, 1) };
      };
      const { given, done } = begin();
      await new Promise((next) => setImmediate(next));
      collect();
      expect(given.deref()).toBeDefined();
      writeSync(to, 'x');
      expect((await done).value).toBe(1);
      closeSync(from);
      closeSync(to);
    });

    it('takes any number of calls at once', async () => {
      const calls = Array.from({ length: 2000 }, () => libc.callAsync('rmdir', '/no/such/path'));
      const errors = new Set((await Promise.all(calls)).map(({ errno }) => errno));
      expect(errors).toEqual(new Set([2]));
    });

    it('gives texts of any length and kind as they are', async () => {
      const text = `${'é𝄞'.repeat(200_000)}\ud800`;
      const target = Buffer.alloc(text.length * 2);
      await copy.callAsync('fromText', target, text, target.length);
      expect(target.equals(Buffer.from(text, 'utf16le'))).toBe(true);
    });

    it('finds a function under another name', () => {
      expect(libc.call('removeDirectory', '/no/such/path').errno).toBe(2);
    });

    it('refuses strings that C would cut short, also inside of others', () => {
      expect(() => libc.call('rmdir', '/no\0such')).toThrow(/"\/no\\u0000such" contains NUL/);
      expect(() => libc.call('rmdir', [{ path: '/no\0such' }])).toThrow(/contains NUL/);
    });
  });
});
