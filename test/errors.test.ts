import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { CimletError, classify } from '../src/errors.ts';

/** As Node makes them. */
function systemError(code: string, syscall?: string): Error {
  return Object.assign(new Error(`${code}: what happened, ${syscall ?? 'open'} '/secret'`), {
    code,
    syscall,
  });
}

describe('classify', () => {
  it.each([
    ['ENOENT', 'not-found'],
    ['EROFS', 'access-denied'],
    ['ENOSPC', 'no-space'],
    ['ELOOP', 'failed-precondition'],
    ['ENAMETOOLONG', 'failed-precondition'],
    ['EPIPE', 'unavailable'],
    ['EIO', 'native'],
    ['EUCLEAN', 'native'],
  ])('gives %s its class %s, and the operation its name', (code, expected) => {
    expect(classify(systemError(code, 'read'), 'read /x')).toMatchObject({
      code: expected,
      message: `read /x: what happened (${code})`,
    });
  });

  it('knows what Node really throws', () => {
    expect.assertions(1);
    try {
      readFileSync('/proc/self/mem');
    } catch (error) {
      expect(classify(error, 'read memory')).toMatchObject({ code: 'native', cause: error });
    }
  });

  it('passes on what it already classed, and bugs', () => {
    const own = new CimletError('busy', 'busy');
    const bug = Object.assign(new TypeError('bug'), { code: 'ERR_INVALID_ARG_TYPE' });
    expect(classify(own, 'x')).toBe(own);
    expect(classify(bug, 'x')).toBe(bug);
  });
});
