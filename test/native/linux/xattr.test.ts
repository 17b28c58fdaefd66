import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { getXattr, listXattrs, setXattr } from '../../../src/native/linux/xattr.ts';
import { Workshop } from '../../erofs/mounts.ts';
import { isRoot, requireOrSkip } from '../../support/requirements.ts';

let shop: Workshop;
beforeEach(() => {
  shop = new Workshop();
  writeFileSync(shop.at('file'), '');
  symlinkSync('file', shop.at('link'));
});
afterEach(() => shop.close());

describe.runIf(process.platform === 'linux')('xattrs', () => {
  it('come back as they were set, empty and with any bytes', () => {
    const every = Uint8Array.from({ length: 256 }, (_, byte) => byte);
    expect(setXattr(shop.at('file'), 'user.every', every)).toBe(true);
    expect(setXattr(shop.at('file'), 'user.empty', new Uint8Array())).toBe(true);
    expect(getXattr(shop.at('file'), 'user.every')).toEqual(every);
    expect(getXattr(shop.at('file'), 'user.empty')).toEqual(new Uint8Array());
    expect(
      listXattrs(shop.at('file'))
        .map(String)
        .filter((name) => name.startsWith('user.'))
        .sort(),
    ).toEqual(['user.empty', 'user.every']);
  });

  it('are undefined when they are not there', () => {
    expect(getXattr(shop.at('file'), 'user.none')).toBeUndefined();
  });

  it('take paths as bytes', () => {
    const path = Buffer.concat([Buffer.from(shop.at('raw-')), Buffer.from([0xff, 0xfe])]);
    writeFileSync(path, '');
    expect(setXattr(path, 'user.a', Buffer.from('b'))).toBe(true);
    expect(getXattr(path, 'user.a')).toEqual(new Uint8Array(Buffer.from('b')));
  });

  it.runIf(requireOrSkip('root', isRoot))('belong to a symlink itself, which can have no user. ones', () => {
    expect(setXattr(shop.at('link'), 'trusted.a', Buffer.from('b'))).toBe(true);
    expect(listXattrs(shop.at('link')).map(String)).toContain('trusted.a');
    expect(listXattrs(shop.at('file')).map(String)).not.toContain('trusted.a');
    expect(setXattr(shop.at('link'), 'user.a', Buffer.from('b'))).toBe(false);
  });

  it('say what a file system has no room for, and fail for what is not there', () => {
    mkdirSync(shop.at('directory'));
    expect(setXattr(shop.at('directory'), 'user.huge', Buffer.alloc(65_537))).toBe(false);
    expect(setXattr(shop.at('directory'), 'nonsense.a', Buffer.alloc(1))).toBe(false);
    for (const call of [
      () => getXattr(shop.at('none'), 'user.a'),
      () => setXattr(shop.at('none'), 'user.a', Buffer.alloc(1)),
      () => listXattrs(shop.at('none')),
    ])
      expect(call).toThrow(expect.objectContaining({ code: 'not-found' }));
    expect(() => listXattrs('/\0')).toThrow(/NUL/);
  });
});
