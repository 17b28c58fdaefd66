import { describe, expect, it } from 'vitest';
import { C, library } from '../../src/native/library.ts';

const { int, str } = C;

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

    it('finds a function under another name', () => {
      expect(libc.call('removeDirectory', '/no/such/path').errno).toBe(2);
    });

    it('refuses strings that C would cut short', () => {
      expect(() => libc.call('rmdir', '/no\0such')).toThrow(/"\/no\\u0000such" contains NUL/);
    });
  });
});
