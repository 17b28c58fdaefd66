import { FileAttribute } from '../cim/types.ts';
import { formatPaxTime } from '../tar/pax.ts';
import type { TarEntryType } from '../tar/tar-format.ts';
import { type TarEntry, TarWriter } from '../tar/tar-writer.ts';
import type { ExtendedAttribute } from './extended-attributes.ts';
import { UNIX_EPOCH_FILETIME, unixFromFiletime } from './filetime.ts';
import { splitPath } from './layer-path.ts';

/** Metadata of a layer's entry; times are FILETIMEs. What is absent is left out of the tar, or 1970 for times. */
export interface LayerMetadata {
  /** Beyond `directory`, which the kind of entry decides. */
  attributes?: number;
  lastWriteTime?: bigint;
  creationTime?: bigint;
  lastAccessTime?: bigint;
  changeTime?: bigint;
  /** Self-relative. */
  securityDescriptor?: Uint8Array;
  extendedAttributes?: readonly ExtendedAttribute[];
}

/**
 * Writes a Windows layer tar as go-winio's backuptar does: PAX records for what Windows knows beyond a tar, sub-second
 * times, alternate streams as entries `<file>:<stream>`. Same calls, same bytes.
 */
export class LayerTarWriter {
  readonly #tar: TarWriter;
  #lastTimes: Pick<TarEntry, 'mtime' | 'atime' | 'ctime'> = {};

  constructor(sink: (bytes: Uint8Array) => void) {
    this.#tar = new TarWriter(sink);
  }

  directory(path: string, metadata: LayerMetadata = {}): void {
    this.#tar.entry(this.#entry(`${path}/`, 'directory', metadata, FileAttribute.directory));
  }

  file(path: string, content: Uint8Array | string, metadata: LayerMetadata = {}): void {
    const bytes = toBytes(content);
    this.beginFile(path, bytes.length, metadata);
    this.write(bytes);
  }

  /** A file whose `size` bytes follow through `write`. */
  beginFile(path: string, size: number, metadata: LayerMetadata = {}): void {
    this.#tar.entry({ ...this.#entry(path, 'file', metadata, 0), size });
  }

  write(bytes: Uint8Array): void {
    this.#tar.data(bytes);
  }

  /** An alternate stream of the file written just before. */
  stream(path: string, name: string, content: Uint8Array | string): void {
    const bytes = toBytes(content);
    this.beginStream(path, name, bytes.length);
    this.write(bytes);
  }

  /** An alternate stream whose `size` bytes follow through `write`. */
  beginStream(path: string, name: string, size: number): void {
    this.#tar.entry({ name: `${path}:${name}`, type: 'file', size, mode: 0o644, ...this.#lastTimes });
  }

  hardLink(path: string, target: string): void {
    this.#tar.entry({ name: path, type: 'hard-link', linkName: target, ...this.#lastTimes });
  }

  /** `isDirectory` as Windows needs to know it of the target. */
  symlink(path: string, target: string, metadata: LayerMetadata = {}, isDirectory = false): void {
    const kind = FileAttribute.reparsePoint | (isDirectory ? FileAttribute.directory : 0);
    this.#tar.entry({
      ...this.#entry(path, 'symlink', metadata, kind),
      linkName: target.replaceAll('\\', '/'),
    });
  }

  /** `target` is absolute: `C:\...`, `\\?\Volume{...}\`. */
  mountPoint(path: string, target: string, metadata: LayerMetadata = {}): void {
    const kind = FileAttribute.reparsePoint | FileAttribute.directory;
    const entry = this.#entry(path, 'symlink', metadata, kind);
    const records = { ...entry.records, 'MSWINDOWS.mountpoint': '1' };
    this.#tar.entry({ ...entry, records, linkName: target.replaceAll('\\', '/') });
  }

  /** Says that lower layers' `path` is gone. */
  whiteout(path: string): void {
    const [parent, name] = splitPath(path);
    this.#tar.file({ name: `${parent}${parent === '' ? '' : '/'}.wh.${name}` }, new Uint8Array());
  }

  /** Says that what lower layers have below `path` is gone. */
  opaque(path: string): void {
    this.#tar.file({ name: `${path}/.wh..wh..opq` }, new Uint8Array());
  }

  finish(): void {
    this.#tar.finish();
  }

  #entry(name: string, type: TarEntryType, metadata: LayerMetadata, kind: number): TarEntry {
    const { lastWriteTime = UNIX_EPOCH_FILETIME, lastAccessTime, changeTime } = metadata;
    const times = {
      mtime: unixFromFiletime(lastWriteTime),
      atime: lastAccessTime === undefined ? undefined : unixFromFiletime(lastAccessTime),
      ctime: changeTime === undefined ? undefined : unixFromFiletime(changeTime),
    };
    this.#lastTimes = times;
    const mode = type === 'directory' ? 0o755 : 0o644;
    return { name, type, mode, ...times, records: windowsRecords(metadata, kind) };
  }
}

function windowsRecords(metadata: LayerMetadata, kind: number): Record<string, string> {
  const { attributes = 0, creationTime, securityDescriptor, extendedAttributes = [] } = metadata;
  const records: Record<string, string> = { 'MSWINDOWS.fileattr': String((attributes | kind) >>> 0) };
  if (creationTime !== undefined) {
    records['LIBARCHIVE.creationtime'] = formatPaxTime(unixFromFiletime(creationTime));
  }
  if (securityDescriptor !== undefined) records['MSWINDOWS.rawsd'] = toBase64(securityDescriptor);
  for (const { name, value } of extendedAttributes) records[`MSWINDOWS.xattr.${name}`] = toBase64(value);
  return records;
}

function toBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64');
}

function toBytes(content: Uint8Array | string): Uint8Array {
  return typeof content === 'string' ? Buffer.from(content) : content;
}
