import { expect, it } from 'vitest';
import { symlinkTarget } from '../../../src/hosts/embedded/symlink-target.ts';
import { encodeReparse } from '../../../src/layers/reparse.ts';

it.each([
  ['..\\a\\b', '../a/b'],
  ['plain', 'plain'],
  ['\\rooted\\x', '/rooted/x'],
  ['C:\\Windows', '/Windows'],
  ['c:\\', '/'],
  ['C:relative', 'C:relative'],
  ['D:\\data', 'D:/data'],
  ['\\\\server\\share\\x', '//server/share/x'],
  ['\\\\?\\C:\\Windows', '/Windows'],
  ['\\\\?\\UNC\\server\\share', '//server/share'],
  ['\\\\?\\Volume{01234567}\\x', 'Volume{01234567}/x'],
])('%s is shown as %s', (target, shown) => {
  const data = encodeReparse({ target, isMountPoint: false });
  expect(symlinkTarget(data as Buffer)?.toString()).toBe(shown);
});

it('refuses what is no link, or no target for Linux', () => {
  expect(symlinkTarget(Buffer.from([0x13, 0, 0, 0x90, 0, 0, 0, 0]))).toBeUndefined();
  expect(symlinkTarget(new Uint8Array(0))).toBeUndefined();
  expect(
    symlinkTarget(encodeReparse({ target: 'x'.repeat(4_000), isMountPoint: false }) as Buffer),
  ).toBeDefined();
  const tooLong = encodeReparse({ target: 'ü'.repeat(2_100), isMountPoint: false });
  expect(symlinkTarget(tooLong as Buffer)).toBeUndefined();
});
