/**
 * Makes the small images the example manifests name. The Windows one: a base layer, and one above it that deletes, replaces,
 * links and empties. Everything comes from cimlet's own tar and OCI writers; the bytes are the same on every machine.
 */

import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { createHive, createKey, createValue, KeyFlag, ValueType } from '../src/hive/model.ts';
import { writeHive } from '../src/hive/writer.ts';
import { writeOciLayout } from '../src/images/layout-writer.ts';
import { type TarEntry, TarWriter } from '../src/tar/tar-writer.ts';

const NEW_YEAR = 1_767_225_600_123_456_700n; // 2026-01-01T00:00:00.1234567Z, in nanoseconds
const DIRECTORIES = [
  '',
  '/Windows',
  '/Windows/System32',
  '/Windows/System32/config',
  '/Program Files',
  '/Program Files/hello',
  '/Users',
  '/Users/Public',
];
const FileAttribute = { readOnly: 1, hidden: 2, directory: 16, archive: 32 };

/** Writes the image as an OCI layout to `<directory>/hello`, and beside it its layer tars and one more layer, tools.tar. */
export async function makeExampleImage(directory: string): Promise<void> {
  mkdirSync(directory, { recursive: true });
  const base = join(directory, 'base.tar');
  const patch = join(directory, 'patch.tar');
  writeTar(base, writeBaseLayer);
  writeTar(patch, writePatchLayer);
  writeTar(join(directory, 'tools.tar'), writeToolsLayer);
  await writeOciLayout(join(directory, 'hello'), {
    layers: [
      { tar: base, compression: 'gzip' },
      { tar: patch, compression: 'gzip' },
    ],
    platform: { os: 'windows', architecture: 'amd64', osVersion: '10.0.26100.1742' },
  });
}

/** Writes a Linux image of two layers as an OCI layout to `<directory>/tux`. */
export async function makeLinuxImage(directory: string): Promise<void> {
  mkdirSync(directory, { recursive: true });
  const base = join(directory, 'tux-base.tar');
  const patch = join(directory, 'tux-patch.tar');
  writeTar(base, (tar) => {
    for (const name of ['etc', 'usr', 'usr/bin', 'tmp'])
      addLinux(tar, { name, type: 'directory', mode: 0o755 });
    tar.file(
      { name: 'etc/motd', mode: 0o644, mtime: NEW_YEAR },
      Buffer.from('the second layer deletes me\n'),
    );
    tar.file({ name: 'usr/bin/hello', mode: 0o755, mtime: NEW_YEAR }, Buffer.from('#!/bin/sh\necho Hello\n'));
    addLinux(tar, { name: 'bin', type: 'symlink', linkName: 'usr/bin' });
  });
  writeTar(patch, (tar) => {
    tar.file({ name: 'etc/.wh.motd', mtime: NEW_YEAR }, Buffer.alloc(0));
    tar.file({ name: 'etc/hostname', mode: 0o644, mtime: NEW_YEAR }, Buffer.from('tux\n'));
    addLinux(tar, { name: 'usr/bin/greet', type: 'symlink', linkName: 'hello' });
  });
  await writeOciLayout(join(directory, 'tux'), {
    layers: [
      { tar: base, compression: 'gzip' },
      { tar: patch, compression: 'gzip' },
    ],
    platform: { os: 'linux', architecture: 'amd64' },
  });
}

function addLinux(tar: TarWriter, entry: Omit<TarEntry, 'mtime'>): void {
  tar.entry({ ...entry, mtime: NEW_YEAR });
}

function writeTar(path: string, write: (tar: TarWriter) => void): void {
  const file = openSync(path, 'w');
  try {
    const tar = new TarWriter((bytes) => writeSync(file, bytes));
    write(tar);
    tar.finish();
  } finally {
    closeSync(file);
  }
}

function writeBaseLayer(tar: TarWriter): void {
  for (const path of DIRECTORIES) addDirectory(tar, `Files${path}`);
  for (const name of ['DEFAULT', 'SAM', 'SECURITY', 'SOFTWARE', 'SYSTEM'])
    addFile(tar, `Files/Windows/System32/config/${name}`, makeHive(name, {}));
  addFile(tar, 'Files/Windows/win.ini', '; for 16-bit app support\r\n');
  addFile(tar, 'Files/Windows/win.ini:Zone.Identifier', '[ZoneTransfer]\r\nZoneId=3\r\n');
  addFile(tar, 'Files/Windows/System32/kernel.bin', binary(300_000));
  addFile(tar, 'Files/Windows/System32/kernel-copy.bin', binary(300_000));
  addFile(tar, 'Files/Program Files/hello/hello.cmd', '@echo Hello from a layer\r\n', {
    'MSWINDOWS.fileattr': String(FileAttribute.readOnly | FileAttribute.archive),
    'MSWINDOWS.rawsd': usersMayRead().toString('base64'),
  });
  addFile(tar, 'Files/Program Files/hello/settings.ini', 'color=blue\r\n', {
    'MSWINDOWS.xattr.OWNER': Buffer.from('cimlet').toString('base64'),
  });
  addFile(tar, 'Files/Users/Public/notes.txt', 'the second layer deletes me\r\n', {
    'MSWINDOWS.fileattr': String(FileAttribute.hidden),
  });
  addDirectory(tar, 'Files/Users/Public/cache');
  addFile(tar, 'Files/Users/Public/cache/stale.bin', binary(5_000));
  tar.entry({ name: 'Files/hello', type: 'symlink', linkName: 'Program Files\\hello', mtime: NEW_YEAR });
}

function writePatchLayer(tar: TarWriter): void {
  addDirectory(tar, 'Hives');
  addFile(tar, 'Hives/SOFTWARE_DELTA', makeHive('SOFTWARE', { Greeting: 'Hello from the second layer' }));
  addFile(tar, 'Files/Users/Public/.wh.notes.txt', '');
  addFile(tar, 'Files/Users/Public/cache/.wh..wh..opq', '');
  addFile(tar, 'Files/Users/Public/cache/fresh.txt', 'the opaque whiteout emptied this directory first\r\n');
  addFile(tar, 'Files/Program Files/hello/settings.ini', 'color=green\r\n');
  tar.entry({
    name: 'Files/Program Files/hello/kernel-link.bin',
    type: 'hard-link',
    linkName: 'Files/Windows/System32/kernel.bin',
    mtime: NEW_YEAR,
  });
}

function writeToolsLayer(tar: TarWriter): void {
  addDirectory(tar, 'Files/tools');
  addFile(tar, 'Files/tools/tool.exe', binary(20_000));
  addFile(tar, 'Files/Windows/.wh.win.ini', '');
}

function addDirectory(tar: TarWriter, name: string): void {
  const records = { 'MSWINDOWS.fileattr': String(FileAttribute.directory) };
  tar.entry({ name, type: 'directory', mode: 0o755, mtime: NEW_YEAR, records });
}

function addFile(
  tar: TarWriter,
  name: string,
  content: string | Buffer,
  records: Record<string, string> = {},
): void {
  const attributes = { 'MSWINDOWS.fileattr': String(FileAttribute.archive) };
  tar.file(
    { name, mode: 0o644, mtime: NEW_YEAR, records: { ...attributes, ...records } },
    Buffer.from(content),
  );
}

/** A registry hive with one key; Windows layers carry five of them, and layers above the base what they change. */
function makeHive(fileName: string, settings: Record<string, string>): Buffer {
  const security = usersMayRead();
  const values = Object.entries(settings).map(([name, text]) =>
    createValue(name, ValueType.string, Buffer.from(`${text}\0`, 'utf16le')),
  );
  const cimlet = createKey('cimlet', { values, security });
  return writeHive(
    createHive(createKey('ROOT', { flags: KeyFlag.noDelete, security, subkeys: [cimlet] }), { fileName }),
  );
}

/** Bytes that look like a program's: neither zeros nor noise. */
function binary(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let index = 0; index < length; index++) bytes[index] = (index * 31 + (index >> 8) * 7) & 0xff;
  return bytes;
}

/** O:BAG:SYD:(A;;FA;;;SY)(A;;FA;;;BA)(A;;FRFX;;;BU) as a self-relative descriptor (MS-DTYP 2.4.6). */
function usersMayRead(): Buffer {
  const system = sid(18);
  const administrators = sid(32, 544);
  const entries = [ace(0x1f01ff, system), ace(0x1f01ff, administrators), ace(0x1200a9, sid(32, 545))];
  const acl = Buffer.concat([Buffer.alloc(8), ...entries]);
  acl.writeUInt8(2, 0);
  acl.writeUInt16LE(acl.length, 2);
  acl.writeUInt16LE(entries.length, 4);
  const header = Buffer.alloc(20);
  header.writeUInt8(1, 0);
  header.writeUInt16LE(0x8004, 2);
  header.writeUInt32LE(header.length, 4);
  header.writeUInt32LE(header.length + administrators.length, 8);
  header.writeUInt32LE(header.length + administrators.length + system.length, 16);
  return Buffer.concat([header, administrators, system, acl]);
}

function sid(...subAuthorities: number[]): Buffer {
  const bytes = Buffer.alloc(8 + 4 * subAuthorities.length);
  bytes.writeUInt8(1, 0);
  bytes.writeUInt8(subAuthorities.length, 1);
  bytes.writeUInt8(5, 7); // NT AUTHORITY
  for (const [index, value] of subAuthorities.entries()) bytes.writeUInt32LE(value, 8 + 4 * index);
  return bytes;
}

function ace(mask: number, trustee: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt16LE(head.length + trustee.length, 2);
  head.writeUInt32LE(mask, 4);
  return Buffer.concat([head, trustee]);
}
