/** A file of an upper directory as the file of a Windows layer that it is: the way back from view-xattrs.ts and cim-view.ts. */

import { isUtf8 } from 'node:buffer';
import { closeSync, fstatSync, openSync, readlinkSync, readSync } from 'node:fs';
import { FileAttribute, type FileInfo, type StreamInfo } from '../../cim/types.ts';
import { CimletError } from '../../errors.ts';
import { filetimeFromUnix } from '../../layers/filetime.ts';
import { encodeReparse } from '../../layers/reparse.ts';
import type { EntrySource } from '../../layers/write-entry.ts';
import { getXattr } from '../../native/linux/xattr.ts';
import { ownXattrs, type UpperEntry } from './upper-tree.ts';
import { STREAM_PREFIX, STREAMS, xattrPrefix } from './view-xattrs.ts';

const READ_CHUNK = 1024 * 1024;

export interface UpperFileOptions {
  /** What is meant, for errors. */
  path: string;
  /** The file that this one was copied from, as far as anybody knows. */
  lower: EntrySource | undefined;
  /** Of a new symbolic link: whether it leads to a directory. */
  leadsToDirectory: boolean;
}

export interface UpperFile {
  source: EntrySource;
  /** Attributes that a Windows layer has no place for. */
  left: number;
}

/** Throws `failed-precondition` for what a Windows layer can't hold. */
export function readUpperFile(entry: Omit<UpperEntry, 'name'>, options: UpperFileOptions): UpperFile {
  const { path, kind, stats } = entry;
  const { lower } = options;
  const isSymlink = kind === 'symlink';
  const prefix = xattrPrefix(isSymlink);
  const names = ownXattrs(path);
  const texts = names.filter((name) => isUtf8(name)).map(String);
  const ours = new Set(
    texts.filter((name) => name.startsWith(prefix)).map((name) => name.slice(prefix.length)),
  );
  const value = (name: string) => (ours.has(name) ? getXattr(path, prefix + name) : undefined);
  const number = (name: string) => {
    const text = value(name);
    return text === undefined ? undefined : BigInt(Buffer.from(text).toString('latin1'));
  };

  const mtime = filetimeFromUnix(stats.mtimeNs);
  if (mtime === undefined) throw refuse(options.path, 'Windows has no such time');
  const known = number('attributes');
  const isDirectory =
    kind === 'directory' ||
    (isSymlink &&
      (known === undefined ? options.leadsToDirectory : (Number(known) & FileAttribute.directory) !== 0));
  const reparseData = value('reparse') ?? (isSymlink ? reparseOf(path, options.path) : undefined);
  const streams = streamsOf(path, prefix, ours, options);
  const wasCopied = known !== undefined;
  const info: FileInfo = {
    id: 0,
    isDirectory,
    attributes: attributesOf(
      entry,
      known === undefined ? undefined : Number(known),
      reparseData !== undefined,
    ),
    size: kind === 'file' ? Number(stats.size) : 0,
    // A copy that doesn't say when it was made was made when it was last written to: that is what the view left out.
    creationTime: number('creationtime') ?? (wasCopied ? lower?.info.creationTime : undefined) ?? mtime,
    lastWriteTime: mtime,
    changeTime: number('changetime') ?? mtime,
    lastAccessTime: number('lastaccesstime') ?? mtime,
    securityDescriptor: value('sd'),
    reparseData,
    extendedAttributes: value('ea'),
    reparseTag: reparseData === undefined ? 0 : Buffer.from(reparseData).readUInt32LE(0),
  };
  return {
    source: {
      from: 'the snapshot',
      info,
      streams: streams.map(({ name, size }) => ({ name, size })),
      read: (name?: string) =>
        name === undefined
          ? readFileChunks(path)
          : (streams.find((each) => each.name === name)?.read() ?? []),
    },
    left: names.length - ours.size,
  };
}

/** New files have the attribute that Windows gives them; read-only is what nobody may write to. */
function attributesOf(
  { kind, stats }: Omit<UpperEntry, 'name'>,
  known: number | undefined,
  hasReparse: boolean,
): number {
  const plain = known ?? (kind === 'file' ? FileAttribute.archive : 0);
  const cleared = plain & ~(FileAttribute.readOnly | FileAttribute.directory | FileAttribute.reparsePoint);
  const readOnly =
    kind === 'symlink'
      ? plain & FileAttribute.readOnly
      : (stats.mode & 0o222n) === 0n
        ? FileAttribute.readOnly
        : 0;
  return cleared | readOnly | (hasReparse ? FileAttribute.reparsePoint : 0);
}

/** The way back from `symlinkTarget`: what is shown from `/` on lies on drive C:. */
function reparseOf(path: Buffer, name: string): Uint8Array {
  const bytes = readlinkSync(path, { encoding: 'buffer' }) as Buffer;
  const text = bytes.toString();
  if (!Buffer.from(text).equals(bytes)) throw refuse(name, 'its target is not UTF-8');
  const target = text.startsWith('/') && !text.startsWith('//') ? `C:${text}` : text;
  const data = encodeReparse({ target, isMountPoint: false });
  if (typeof data === 'string') throw refuse(name, data);
  return data;
}

interface UpperStream extends StreamInfo {
  read(): Iterable<Uint8Array>;
}

/** Alternate streams: those the view could show, and those it only listed, which are still the lower file's. */
function streamsOf(
  path: Buffer,
  prefix: string,
  ours: ReadonlySet<string>,
  { path: name, lower }: UpperFileOptions,
): UpperStream[] {
  const streams: UpperStream[] = [];
  for (const xattr of ours) {
    if (!xattr.startsWith(STREAM_PREFIX)) continue;
    const value = getXattr(path, prefix + xattr) ?? new Uint8Array();
    streams.push({ name: xattr.slice(STREAM_PREFIX.length), size: value.length, read: () => [value] });
  }
  if (ours.has(STREAMS)) {
    if (lower === undefined)
      throw refuse(name, 'its large alternate streams stayed behind when it was moved');
    for (const { name: stream, size } of lower.streams)
      if (!streams.some((each) => each.name === stream))
        streams.push({ name: stream, size, read: () => lower.read(stream) });
  }
  return streams.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** A file's bytes; sockets and devices are not opened. A chunk is good until the next. */
export function* readFileChunks(path: Buffer): Generator<Uint8Array> {
  const descriptor = openSync(path, 'r');
  try {
    const { size } = fstatSync(descriptor);
    const chunk = Buffer.allocUnsafe(Math.min(READ_CHUNK, size + 1));
    for (;;) {
      const bytes = readSync(descriptor, chunk);
      if (bytes === 0) return;
      yield chunk.subarray(0, bytes);
    }
  } finally {
    closeSync(descriptor);
  }
}

export function refuse(path: string, reason: string): CimletError {
  return new CimletError('failed-precondition', `write ${path} to a Windows layer: ${reason}`, {
    hint: 'remove it, or change it',
  });
}
