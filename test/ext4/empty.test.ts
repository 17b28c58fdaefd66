import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { emptyExt4, LARGEST_EMPTY, SMALLEST_EMPTY, writeEmptyExt4 } from '../../src/ext4/empty.ts';
import { unmount } from '../../src/native/linux/mount.ts';
import { mountExt4 } from '../../src/native/linux/overlay.ts';
import { canLoop } from '../erofs/mounts.ts';
import { hasTool, requireOrSkip } from '../support/requirements.ts';

const hasE2fsck = requireOrSkip('e2fsck', hasTool('e2fsck'));
const UUID = Buffer.from('00112233445566778899aabbccddeeff', 'hex');

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cimlet-empty-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

function make(bytes: number, name = 'image'): string {
  const file = join(directory, name);
  writeEmptyExt4(file, bytes, UUID);
  return file;
}

describe('an empty ext4 file system', () => {
  it.runIf(hasE2fsck).each([
    ['the smallest', SMALLEST_EMPTY],
    ['no whole group', 100 * 2 ** 20 + 123],
    ['a last group of one block', 128 * 2 ** 20 + 4096],
    ['many groups', 4 * 2 ** 30],
  ])('is clean for e2fsck: %s', (_, bytes) => {
    const said = execFileSync('e2fsck', ['-fn', make(bytes)], { encoding: 'utf8', stdio: 'pipe' });
    expect(said).toMatch(/: 11\/\d+ files .* blocks/);
  });

  it.runIf(canLoop && hasE2fsck)('has the directories that are asked for', async () => {
    const image = join(directory, 'image');
    const mtime = 1_700_000_000_123_456_789n;
    const directories = ['a', 'a/b', 'a/b/c', 'd'].map((path, index) => ({
      path,
      mode: 0o700 + index,
      mtime,
    }));
    writeEmptyExt4(image, SMALLEST_EMPTY, UUID, directories);
    execFileSync('e2fsck', ['-fn', image], { stdio: 'pipe' });
    const target = join(directory, 'mounted');
    mkdirSync(target);
    await mountExt4(image, target);
    try {
      for (const { path, mode } of directories) {
        const stats = statSync(join(target, path), { bigint: true });
        expect([stats.mode & 0o7777n, stats.mtimeNs]).toEqual([BigInt(mode), mtime]);
      }
      expect(readdirSync(target, { recursive: true }).sort()).toEqual([
        ...directories.map(({ path }) => path),
        'lost+found',
      ]);
      writeFileSync(join(target, 'a/b/file'), 'file');
    } finally {
      await unmount(target);
    }
    execFileSync('e2fsck', ['-fn', image], { stdio: 'pipe' });
  });

  it('has no piece that is all zeros, which a disk that grows would keep', () => {
    for (const { content } of emptyExt4(4 * 2 ** 30, UUID, 'make').pieces)
      expect(content.equals(Buffer.alloc(content.length))).toBe(false);
  });

  it('takes next to no space, and is the same each time', () => {
    const [one, other] = [make(2 ** 26, 'one'), make(2 ** 26, 'other')];
    expect(statSync(one).blocks * 512).toBeLessThan(2 ** 18);
    execFileSync('cmp', [one, other]);
  });

  it('has bounds, and replaces nothing', () => {
    expect(() => make(SMALLEST_EMPTY - 1)).toThrow(/choose a size|bytes/);
    expect(() => make(LARGEST_EMPTY + 1)).toThrow(expect.objectContaining({ code: 'invalid-manifest' }));
    writeFileSync(join(directory, 'image'), 'something');
    expect(() => make(SMALLEST_EMPTY)).toThrow(expect.objectContaining({ code: 'already-exists' }));
  });

  it.runIf(canLoop && hasE2fsck)('is written to by the kernel until it is full', async () => {
    const image = make(SMALLEST_EMPTY);
    const target = join(directory, 'mounted');
    mkdirSync(target);
    await mountExt4(image, target);
    try {
      writeFileSync(join(target, 'kept'), 'kept');
      expect(() => writeFileSync(join(target, 'large'), Buffer.alloc(SMALLEST_EMPTY))).toThrow(/ENOSPC/);
    } finally {
      await unmount(target);
    }
    execFileSync('e2fsck', ['-fn', image], { stdio: 'pipe' });
    await mountExt4(image, target);
    try {
      expect(readFileSync(join(target, 'kept'), 'utf8')).toBe('kept');
    } finally {
      await unmount(target);
    }
  });
});
