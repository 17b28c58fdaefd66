import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { publishCim } from '../../src/cim/publish.ts';
import type { FileInfo, FileMetadata } from '../../src/cim/types.ts';
import { createCimWriter } from '../../src/cim/writer.ts';
import { formatFileTime, formatMode, formatReparseTag, reparseTarget } from '../../src/cli/render-cim.ts';

const GUID = '6f0f3b57-5a3c-5f64-9c1e-1d6c4f0f7a11';
const LAUNCHER = resolve(import.meta.dirname, '../../bin/cimlet.cjs');
const binary = Buffer.from(Array.from({ length: 100_000 }, (_, index) => (index * 7) % 256));

let directory: string;
let file: string;

function metadata(size: number, attributes = 0x20): FileMetadata {
  const time = 133_000_000_000_000_000n;
  return {
    attributes,
    size,
    creationTime: time,
    lastWriteTime: time,
    changeTime: time,
    lastAccessTime: time,
  };
}

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'cimlet-cim-'));
  file = join(directory, 'x.cim');
  const writer = createCimWriter({ directory, name: 'x', regionGuid: GUID });
  writer.createFile('Files', metadata(0, 0x10)).close();
  const put = (path: string, data: Buffer) => {
    const stream = writer.createFile(path, metadata(data.length));
    stream.write(data);
    stream.close();
  };
  put('Files/data.bin', binary);
  put('Files/evil\u001b[2J\u009b', Buffer.from('x'));
  const stream = writer.createAlternateStream('Files/data.bin', 'Zone.Identifier', 2);
  stream.write(Buffer.from('hi'));
  stream.close();
  writer.finish();
  writer.close();
  publishCim(directory, 'x', GUID);
});

afterAll(() => rmSync(directory, { recursive: true, force: true }));

const cim = (...args: string[]) => execFileSync(process.execPath, [LAUNCHER, 'cim', ...args]);

test('cat writes bytes as they are, of any stream', () => {
  expect(cim('cat', file, 'files/DATA.BIN')).toEqual(binary);
  expect(cim('cat', file, 'Files\\data.bin:Zone.Identifier').toString()).toBe('hi');
  expect(cim('cat', file, 'Files/data.bin:zone.identifier:$DATA').toString()).toBe('hi');
});

test('a stream that is not there is an error, and nothing on standard output', () => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [LAUNCHER, 'cim', 'cat', file, 'Files/data.bin:none'],
    { encoding: 'utf8' },
  );
  expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
  expect(stderr).toMatch(/^error: .*none/);
});

test('hostile names are escaped, as text and as data', () => {
  for (const args of [['ls'], ['ls', '-l'], ['tree'], ['ls', '-o', 'json'], ['ls', '-o', 'yaml']]) {
    const [command = '', ...flags] = args;
    const text = cim(command, file, 'Files', ...flags).toString();
    expect(text).toContain('evil\\');
    expect(text).not.toContain('\u001b');
    expect(text).not.toContain('\u009b');
  }
});

test('stat names the streams', () => {
  expect(cim('stat', file, 'Files/data.bin').toString()).toMatch(/^Stream: +Zone\.Identifier \(2 B\)$/m);
  expect(JSON.parse(cim('stat', file, 'Files/data.bin', '-o', 'json').toString())).toMatchObject({
    size: 100_000,
    lastWriteTime: '2022-06-18T04:26:40.0000000Z',
    streams: [{ name: 'Zone.Identifier', size: 2 }],
  });
});

test.each([
  [0n, '-'],
  [1n, '1601-01-01T00:00:00.0000001Z'],
  [116_444_736_000_000_000n, '1970-01-01T00:00:00.0000000Z'],
  [116_444_735_999_999_999n, '1969-12-31T23:59:59.9999999Z'],
  [0x7fff_ffff_ffff_ffffn, '+030828-09-14T02:48:05.4775807Z'],
])('FILETIME %s is %s', (time, text) => expect(formatFileTime(time)).toBe(text));

function info(change: Partial<FileInfo>): FileInfo {
  return { ...metadata(0), id: 1, isDirectory: false, reparseTag: 0, ...change };
}

test('the mode column is PowerShell\u2019s', () => {
  expect(formatMode(info({ attributes: 0x27 }))).toBe('-arhs-');
  expect(formatMode(info({ attributes: 0, isDirectory: true, reparseTag: 0xa0000003 }))).toBe('d----l');
  expect(formatReparseTag(0xa000000c)).toBe('symlink (0xa000000c)');
});

test('a reparse target that lies about its length is no target', () => {
  const reparseData = Buffer.alloc(24);
  reparseData.writeUInt16LE(1000, 14);
  expect(reparseTarget(info({ reparseTag: 0xa000000c, reparseData }))).toBeUndefined();
  expect(reparseTarget(info({ reparseTag: 0xa000000c, reparseData: Buffer.alloc(3) }))).toBeUndefined();
});
