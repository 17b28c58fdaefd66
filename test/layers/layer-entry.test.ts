import { describe, expect, it } from 'vitest';
import { CimletError } from '../../src/errors.ts';
import { decodeExtendedAttributes, encodeExtendedAttributes } from '../../src/layers/extended-attributes.ts';
import { filetimeFromUnix, unixFromFiletime } from '../../src/layers/filetime.ts';
import { type LayerEntry, readLayerEntry } from '../../src/layers/layer-entry.ts';
import { decodeReparse, encodeReparse } from '../../src/layers/reparse.ts';
import type { TarHeader } from '../../src/tar/tar-format.ts';

/** Owner and group SYSTEM, a DACL with one entry: BUILTIN\\Users may read. */
const DESCRIPTOR = Buffer.from(
  '01000480' +
    '14000000' +
    '20000000' +
    '00000000' +
    '2c000000' +
    '010100000000000512000000' +
    '010100000000000512000000' +
    '0200200001000000' +
    '00001800a9001200' +
    '01020000000000052000000021020000',
  'hex',
);

function header(
  overrides: Partial<Omit<TarHeader, 'records'>> & { records?: Record<string, string> },
): TarHeader {
  const { records = {}, ...rest } = overrides;
  return {
    name: 'Files/x',
    type: 'file',
    size: 0,
    linkName: '',
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: 1_600_000_000_000_000_000n,
    atime: undefined,
    ctime: undefined,
    offset: 512,
    ...rest,
    records: new Map(Object.entries(records)),
  };
}

function metadataOf(entry: LayerEntry) {
  if (entry.kind !== 'file' && entry.kind !== 'directory' && entry.kind !== 'link')
    throw new Error(entry.kind);
  return entry.metadata;
}

const MTIME = 132_444_736_000_000_000n;

describe('what an entry is', () => {
  it.each<[string, Partial<TarHeader>, object]>([
    ['./', { type: 'directory' }, { kind: 'root' }],
    ['.', { type: 'directory' }, { kind: 'root' }],
    ['./Files/', { type: 'directory' }, { kind: 'directory', path: 'Files' }],
    ['Files//a/./b', {}, { kind: 'file', path: 'Files/a/b' }],
    ['Hives/SAM_DELTA', {}, { kind: 'file', path: 'Hives/SAM_DELTA' }],
    ['UtilityVM/Files/x', {}, { kind: 'file', path: 'UtilityVM/Files/x' }],
    ['Files/.wh.gone', {}, { kind: 'whiteout', path: 'Files/gone' }],
    ['.wh.UtilityVM', {}, { kind: 'whiteout', path: 'UtilityVM' }],
    ['Files/d/.wh..wh..opq', {}, { kind: 'opaque', path: 'Files/d' }],
    ['Files/a:s', { size: 4 }, { kind: 'stream', path: 'Files/a', stream: 's', size: 4 }],
    ['Files/a:s:$DATA', {}, { kind: 'stream', path: 'Files/a', stream: 's', size: 0 }],
    ['Files/a:$s', {}, { kind: 'stream', path: 'Files/a', stream: '$s' }],
    ['Files/a:s:$data', {}, { kind: 'stream', path: 'Files/a', stream: 's' }],
    [
      'Files/l',
      { type: 'hard-link', linkName: './Files/a' },
      { kind: 'hard-link', path: 'Files/l', target: 'Files/a' },
    ],
    ['Files/l', { type: 'symlink', linkName: 'x' }, { kind: 'link', path: 'Files/l' }],
    ['Files/.whx', {}, { kind: 'file', path: 'Files/.whx' }],
    ['Files/console', {}, { kind: 'file', path: 'Files/console' }],
    ['Files/com10', {}, { kind: 'file', path: 'Files/com10' }],
    ['Files/...x', {}, { kind: 'file', path: 'Files/...x' }],
    [`Files/${'😀'.repeat(127)}x`, {}, { kind: 'file' }],
  ])('%s', (name, overrides, expected) => {
    expect(readLayerEntry({ ...header({ name }), ...overrides })).toMatchObject(expected);
  });
});

describe('what a Windows layer can not hold', () => {
  it.each<[string, Partial<TarHeader>, string]>([
    ['/Files/x', {}, 'the path is absolute'],
    ['Files/../x', {}, "the path has a '..' component"],
    ['../Files', {}, "'..' component"],
    ['Files/..', {}, "'..' component"],
    ['etc/passwd', {}, 'a Windows layer holds only Files/, Hives/, UtilityVM/; this is "etc"'],
    ['files/x', {}, 'this is "files"'],
    ['C:/Windows', {}, 'this is "C:"'],
    ['', {}, 'the entry has no name'],
    ['.wh.etc', {}, 'this is ".wh.etc"'],
    ['Files/a\\b', {}, 'Windows allows no "\\\\" in names'],
    ['Files/a\0b', {}, 'Windows allows no "\\u0000" in names'],
    ['Files/a\nb', {}, 'Windows allows no "\\n" in names'],
    ['Files/a:b/c', {}, 'Windows allows no ":" in names'],
    ['Files/what?', {}, 'Windows allows no "?" in names'],
    ['Files/dot.', {}, 'ends with a dot or a space'],
    ['Files/space /x', {}, 'ends with a dot or a space'],
    ['Files/CON', {}, '"CON" is a reserved device name'],
    ['Files/nul.txt', {}, '"nul.txt" is a reserved device name'],
    ['Files/Aux /x', { type: 'directory' }, 'ends with a dot or a space'],
    ['Files/com1.tar.gz/x', {}, 'reserved device name'],
    ['Files/LPT²', {}, 'reserved device name'],
    ['Files/.wh.PRN', {}, 'reserved device name'],
    [`Files/${'x'.repeat(256)}`, {}, 'a name has 256 UTF-16 units; at most 255 fit'],
    [`Files/${'dir/'.repeat(8200)}x`, {}, 'the path has 32807 UTF-16 units; at most 32767 fit'],
    ['Files/.wh.', {}, '".wh." is no valid whiteout'],
    ['Files/.wh...', {}, '".wh..." is no valid whiteout'],
    ['Files/.wh..wh.plnk', {}, 'no valid whiteout'],
    ['.wh..wh..opq', {}, 'this is ".wh..wh..opq"'],
    ['Files/d/', {}, "a file's name ends with a slash"],
    ['Files/dev', { type: 'character-device' }, "a character device can't be in a Windows layer"],
    ['Files/dev', { type: 'block-device' }, 'a block device'],
    ['Files/pipe', { type: 'fifo' }, 'a named pipe'],
    ['Files/a::$DATA', {}, 'the alternate stream has no name'],
    ['Files/a:s:$INDEX_ALLOCATION', {}, 'streams of type $INDEX_ALLOCATION are not supported'],
    ['Files/a:b:c', {}, 'a stream name has no slash'],
    ['Files/a:s', { type: 'directory' }, "an alternate stream can't be a directory"],
    [
      'Files/l',
      { type: 'hard-link', linkName: '../etc/passwd' },
      'hard link to "../etc/passwd": the path has',
    ],
    ['Files/l', { type: 'hard-link', linkName: '/Files/a' }, 'the path is absolute'],
    ['Files/l', { type: 'hard-link', linkName: 'etc/passwd' }, 'a Windows layer holds only'],
    ['Files/l', { type: 'hard-link', linkName: '' }, 'it is empty'],
    ['Files/l', { type: 'symlink', linkName: '' }, 'the link has no target'],
    ['Files/l', { type: 'symlink', linkName: 'a\0b' }, 'the link target has a NUL'],
    ['Files/l', { type: 'symlink', linkName: 'x'.repeat(5000) }, 'too long'],
    ['Files/x', { mtime: -(10n ** 20n) }, 'mtime is outside of what Windows can express'],
  ])('%s', (name, overrides, message) => {
    try {
      readLayerEntry({ ...header({ name }), ...overrides });
    } catch (error) {
      expect(error).toBeInstanceOf(CimletError);
      expect((error as CimletError).code).toBe('corrupt');
      expect((error as Error).message).toContain(message);
      expect((error as Error).message).toMatch(/^tar entry ".*" at offset 512: /s);
      return;
    }
    throw new Error('accepted');
  });
});

describe('metadata', () => {
  it('of a Linux-made tar: times are mtime, attributes say directory or nothing', () => {
    const file = metadataOf(readLayerEntry(header({ size: 5, mode: 0o400 })));
    expect(file).toEqual({
      attributes: 0,
      size: 5,
      creationTime: MTIME,
      lastWriteTime: MTIME,
      changeTime: MTIME,
      lastAccessTime: MTIME,
      securityDescriptor: undefined,
      reparseData: undefined,
      extendedAttributes: undefined,
    });
    expect(metadataOf(readLayerEntry(header({ type: 'directory' }))).attributes).toBe(0x10);
    expect(metadataOf(readLayerEntry(header({ type: 'symlink', linkName: 'a' }))).attributes).toBe(0x400);
  });

  it('of a Windows-made tar', () => {
    const entry = readLayerEntry(
      header({
        atime: 1_600_000_001_000_000_199n,
        ctime: 1_600_000_002_000_000_000n,
        records: {
          'MSWINDOWS.fileattr': '1059', // reparse point, archive, hidden, read-only
          'LIBARCHIVE.creationtime': '1500000000.123456789',
          'MSWINDOWS.rawsd': DESCRIPTOR.toString('base64'),
          'MSWINDOWS.xattr.B': Buffer.from('second').toString('base64'),
          'MSWINDOWS.xattr.A': Buffer.from('1').toString('base64'),
          'SCHILY.xattr.user.x': 'ignored',
        },
      }),
    );
    const metadata = metadataOf(entry);
    expect(metadata).toMatchObject({
      attributes: 0x23,
      creationTime: 131_444_736_001_234_567n,
      lastWriteTime: MTIME,
      lastAccessTime: MTIME + 10_000_001n,
      changeTime: MTIME + 20_000_000n,
    });
    expect(metadata.securityDescriptor).toEqual(DESCRIPTOR);
    expect(decodeExtendedAttributes(metadata.extendedAttributes!)).toEqual([
      { name: 'A', value: Buffer.from('1'), flags: 0 },
      { name: 'B', value: Buffer.from('second'), flags: 0 },
    ]);
  });

  it('a directory symlink and a mount point are directories', () => {
    const link = { type: 'symlink', linkName: 'target' } as const;
    expect(
      metadataOf(readLayerEntry(header({ ...link, records: { 'MSWINDOWS.fileattr': '1040' } }))).attributes,
    ).toBe(0x410);
    const mount = header({ ...link, linkName: 'C:/data', records: { 'MSWINDOWS.mountpoint': '1' } });
    expect(metadataOf(readLayerEntry(mount)).attributes).toBe(0x410);
    expect(Buffer.from(metadataOf(readLayerEntry(mount)).reparseData!).readUInt32LE(0)).toBe(0xa0000003);
  });

  it.each<[Record<string, string>, Partial<TarHeader>, string]>([
    [{ 'MSWINDOWS.fileattr': 'x' }, {}, 'MSWINDOWS.fileattr "x" is no 32-bit number'],
    [{ 'MSWINDOWS.fileattr': '4294967296' }, {}, 'is no 32-bit number'],
    [{ 'MSWINDOWS.fileattr': '16' }, {}, 'a file whose attributes (16) say it is a directory'],
    [{ 'MSWINDOWS.fileattr': '32' }, { type: 'directory' }, "a directory whose attributes (32) don't say so"],
    [{ 'LIBARCHIVE.creationtime': 'soon' }, {}, 'malformed LIBARCHIVE.creationtime "soon"'],
    [{ 'MSWINDOWS.rawsd': '****' }, {}, 'MSWINDOWS.rawsd is not valid base64'],
    [{ 'MSWINDOWS.rawsd': 'AAAA' }, {}, 'malformed security descriptor: it has 3 bytes'],
    [{ 'MSWINDOWS.xattr.A': 'A' }, {}, 'MSWINDOWS.xattr.A is not valid base64'],
    [{ 'MSWINDOWS.xattr.': 'AAAA' }, {}, 'extended attribute name ""'],
    [{ [`MSWINDOWS.xattr.${'n'.repeat(256)}`]: 'AAAA' }, {}, 'is not 1 to 255 bytes'],
    [{ 'MSWINDOWS.xattr.A': Buffer.alloc(65_535).toString('base64') }, {}, 'at most 65535 fit'],
    [
      { 'MSWINDOWS.mountpoint': '1' },
      { type: 'symlink', linkName: 'rel' },
      'a mount point needs an absolute target',
    ],
  ])('refuses %j', (records, overrides, message) => {
    expect(() => readLayerEntry({ ...header({ records }), ...overrides })).toThrow(message);
  });

  it('reads descriptors in text form, unless there is a raw one', () => {
    const sddl = { 'MSWINDOWS.sd': 'O:SY' };
    const entry = readLayerEntry(header({ records: sddl }));
    expect(entry).toMatchObject({
      metadata: {
        securityDescriptor: Buffer.from(
          '0100008014000000000000000000000000000000010100000000000512000000',
          'hex',
        ),
      },
    });
    const raw = DESCRIPTOR.toString('base64');
    expect(readLayerEntry(header({ records: { ...sddl, 'MSWINDOWS.rawsd': raw } }))).toMatchObject({
      metadata: { securityDescriptor: DESCRIPTOR },
    });
  });

  it('refuses a malformed descriptor in text form at its entry, offset and character', () => {
    expect(() => readLayerEntry(header({ records: { 'MSWINDOWS.sd': 'O:SYD:(A;;XX;;;BA)' } }))).toThrow(
      expect.objectContaining({
        code: 'corrupt',
        message: expect.stringMatching(
          /offset \d+: malformed MSWINDOWS\.sd at character 11: unknown right "XX"/,
        ),
      }),
    );
  });
});

describe('security descriptors', () => {
  const at = (offset: number, ...bytes: number[]) => {
    const copy = Buffer.from(DESCRIPTOR);
    copy.set(bytes, offset);
    return copy;
  };
  it.each<[string, Buffer]>([
    ['revision', at(0, 2)],
    ['not self-relative', at(3, 0)],
    ['owner at 4 lies outside', at(4, 4)],
    ['owner at 16777236 lies outside', at(7, 1)],
    ['owner is not a SID', at(0x14, 9)],
    ['owner is cut off', at(0x15, 15)],
    ['DACL has the unknown revision', at(0x2c, 77)],
    ['DACL is cut off', at(0x2e, 0xff, 0xff)],
    ["DACL has an entry that doesn't fit", at(0x30, 9)],
    ["DACL has an entry that doesn't fit", at(0x36, 0, 0)],
  ])('%s', (message, descriptor) => {
    const records = { 'MSWINDOWS.rawsd': descriptor.toString('base64') };
    expect(() => readLayerEntry(header({ records }))).toThrow(message);
  });
});

describe('reparse points', () => {
  // Hand-decoded after MS-FSCC 2.1.2.4 and 2.1.2.5.
  it.each<[string, boolean, string, boolean]>([
    ['..\\a', false, '..\\a', true],
    ['dir/b', false, 'dir\\b', true],
    ['/etc/x', false, '\\etc\\x', true],
    ['C:\\x', false, '\\??\\C:\\x', false],
    ['c:/x', false, '\\??\\c:\\x', false],
    ['\\\\server\\share', false, '\\??\\UNC\\server\\share', false],
    ['\\\\?\\C:\\x', false, '\\??\\C:\\x', false],
    ['\\\\?\\Volume{1}\\', true, '\\??\\Volume{1}\\', false],
  ])('%s', (target, isMountPoint, substitute, relative) => {
    const data = encodeReparse({ target, isMountPoint });
    if (typeof data === 'string') throw new Error(data);
    const names = isMountPoint ? 16 : 20;
    const at = (offset: number) => data.readUInt16LE(offset);
    expect(data.readUInt32LE(0)).toBe(isMountPoint ? 0xa0000003 : 0xa000000c);
    expect(at(4)).toBe(data.length - 8);
    if (!isMountPoint) expect(data.readUInt32LE(16)).toBe(relative ? 1 : 0);
    expect(data.toString('utf16le', names + at(8), names + at(8) + at(10))).toBe(substitute);
    const print = target.replaceAll('/', '\\');
    expect(data.toString('utf16le', names + at(12), names + at(12) + at(14))).toBe(print);
    expect(decodeReparse(data)).toEqual({ target: print, isMountPoint, isRelative: relative });
  });

  it('malformed ones are not decoded', () => {
    const good = encodeReparse({ target: 'a', isMountPoint: false }) as Buffer;
    for (let length = 0; length < good.length - 2; length++) {
      expect(decodeReparse(good.subarray(0, length))).toBeUndefined();
    }
    expect(decodeReparse(Buffer.alloc(40, 1))).toBeUndefined();
  });
});

it('extended attributes: malformed chains are not decoded', () => {
  const chain = encodeExtendedAttributes([
    { name: 'ONE', value: Buffer.from('12345') },
    { name: 'TWO', value: Buffer.alloc(0) },
  ]) as Buffer;
  expect(chain.toString('hex')).toBe('14000000000305004f4e45003132333435000000000000000003000054574f00');
  for (const length of [3, 10, 22, 30])
    expect(decodeExtendedAttributes(chain.subarray(0, length))).toBeUndefined();
  const loop = Buffer.from(chain);
  loop.writeUInt32LE(2, 0);
  expect(decodeExtendedAttributes(loop)).toBeUndefined();
});

it('FILETIMEs', () => {
  expect(filetimeFromUnix(0n)).toBe(116_444_736_000_000_000n);
  expect(filetimeFromUnix(-1n)).toBe(116_444_735_999_999_999n);
  expect(unixFromFiletime(0n)).toBe(-11_644_473_600_000_000_000n);
  expect(filetimeFromUnix(BigInt(Date.parse('2020-09-13T12:26:40Z')) * 1_000_000n)).toBe(MTIME);
  expect(filetimeFromUnix(-11_644_473_600_000_000_001n)).toBeUndefined();
});
