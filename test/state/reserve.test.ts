import { lstatSync, mkdtempSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { keepReserve } from '../../src/state/reserve.ts';

let root: string;
let file: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'cimlet-reserve-'));
  file = join(root, 'reserve');
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

describe('the room for a start on a full disk', () => {
  it('is kept once it is made', () => {
    expect(keepReserve(root)).toBe(true);
    const { ino, size } = statSync(file);
    expect(size).toBe(2 ** 20);
    expect(keepReserve(root)).toBe(true);
    expect(statSync(file).ino).toBe(ino);
  });

  it.runIf(process.platform === 'linux')(
    'is missing, which is no error, where a write finds none although some is free, as under a quota',
    () => {
      symlinkSync('/dev/full', file);
      expect(keepReserve(root)).toBe(false);
      expect(lstatSync(file, { throwIfNoEntry: false })).toBeUndefined();
      expect(keepReserve(root)).toBe(true);
    },
  );
});
