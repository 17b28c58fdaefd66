/**
 * A tar entry as an entry of a Windows layer. Sources: OCI image-spec layer.md (whiteouts), go-winio backuptar (PAX
 * records `MSWINDOWS.*`, `LIBARCHIVE.creationtime`).
 */

import { descriptorFault } from '../cim/security-descriptor.ts';
import { FileAttribute, type FileMetadata } from '../cim/types.ts';
import { parsePaxTime } from '../tar/pax.ts';
import { entryError, quoteName, type TarHeader } from '../tar/tar-format.ts';
import { encodeExtendedAttributes } from './extended-attributes.ts';
import { filetimeFromUnix } from './filetime.ts';
import { normalizePath, pathFault, rootFault, splitPath, streamNameFault } from './layer-path.ts';
import { encodeReparse } from './reparse.ts';
import { encodeSddl } from './sddl.ts';

/** Paths are normalised, valid on Windows and below one of the layer's roots. */
export type LayerEntry =
  | { kind: 'directory'; path: string; metadata: FileMetadata }
  | { kind: 'file'; path: string; metadata: FileMetadata }
  /** A symlink or mount point; metadata has the reparse data, and perhaps the attribute `directory`. */
  | { kind: 'link'; path: string; metadata: FileMetadata }
  | { kind: 'hard-link'; path: string; target: string }
  /** A stream of the file at `path`, without `:$DATA`. */
  | { kind: 'stream'; path: string; stream: string; size: number }
  /** Lower layers' `path` is gone. */
  | { kind: 'whiteout'; path: string }
  /** What lower layers have below `path` is gone. */
  | { kind: 'opaque'; path: string }
  /** The layer's own root directory. */
  | { kind: 'root' };

const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';
const STREAM_TYPE = /:\$([^:/]*)$/;
const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;
const EA_PREFIX = 'MSWINDOWS.xattr.';

const DEVICES: Partial<Record<TarHeader['type'], string>> = {
  'character-device': 'a character device',
  'block-device': 'a block device',
  fifo: 'a named pipe',
};

/**
 * Understands one header. Throws CimletError `corrupt`, naming entry and offset, for whatever a Windows layer can't
 * hold; mode, owner and foreign records (SCHILY.*) are ignored, as Windows does.
 */
export function readLayerEntry(header: TarHeader): LayerEntry {
  const path = normalizePath(header.name);
  if (typeof path !== 'string') throw entryError(header, path.fault);
  const device = DEVICES[header.type];
  if (device !== undefined) throw entryError(header, `${device} can't be in a Windows layer`);
  if (path === '') {
    if (header.type !== 'directory' || header.name === '') throw entryError(header, 'the entry has no name');
    return { kind: 'root' };
  }
  const root = rootFault(path);
  if (root !== undefined && !isWhiteoutOfRoot(path)) {
    throw entryError(header, root, {
      hint: 'is it the layer of a Linux image? CIM formats hold Windows layers',
    });
  }
  const [parent, name] = splitPath(path);
  if (name.startsWith(WHITEOUT)) return readWhiteout(header, parent, name);

  const colon = path.indexOf(':');
  if (colon > path.length - name.length) return readStream(header, path, colon);
  checkPath(header, path);
  switch (header.type) {
    case 'hard-link':
      return { kind: 'hard-link', path, target: readLinkTarget(header) };
    case 'symlink':
      return { kind: 'link', path, metadata: readMetadata(header) };
    case 'directory':
      return { kind: 'directory', path, metadata: readMetadata(header) };
    default:
      if (header.name.endsWith('/')) throw entryError(header, "a file's name ends with a slash");
      return { kind: 'file', path, metadata: readMetadata(header) };
  }
}

function isWhiteoutOfRoot(path: string): boolean {
  return (
    path.startsWith(WHITEOUT) && rootFault(path.slice(WHITEOUT.length)) === undefined && !path.includes('/')
  );
}

function checkPath(header: TarHeader, path: string): void {
  const fault = pathFault(path);
  if (fault !== undefined) throw entryError(header, fault);
}

function readWhiteout(header: TarHeader, parent: string, name: string): LayerEntry {
  if (name === OPAQUE) {
    checkPath(header, parent);
    if (parent === '') throw entryError(header, 'the root of a layer can not be opaque');
    return { kind: 'opaque', path: parent };
  }
  const hidden = name.slice(WHITEOUT.length);
  if (hidden === '' || hidden === '.' || hidden === '..' || hidden.startsWith(WHITEOUT)) {
    throw entryError(header, `${quoteName(name)} is no valid whiteout`);
  }
  const path = parent === '' ? hidden : `${parent}/${hidden}`;
  checkPath(header, path);
  return { kind: 'whiteout', path };
}

function readStream(header: TarHeader, full: string, colon: number): LayerEntry {
  if (header.type !== 'file') throw entryError(header, `an alternate stream can't be a ${header.type}`);
  const path = full.slice(0, colon);
  checkPath(header, path);
  const rest = full.slice(colon + 1);
  const type = STREAM_TYPE.exec(rest);
  if (type !== null && type[1]?.toUpperCase() !== 'DATA') {
    throw entryError(header, `streams of type $${type[1]} are not supported, only $DATA`);
  }
  const stream = type === null ? rest : rest.slice(0, type.index);
  const fault = streamNameFault(stream);
  if (fault !== undefined) throw entryError(header, fault);
  return { kind: 'stream', path, stream, size: header.size };
}

function readLinkTarget(header: TarHeader): string {
  const target = normalizePath(header.linkName);
  const fault =
    typeof target !== 'string'
      ? target.fault
      : target === ''
        ? 'it is empty'
        : (rootFault(target) ?? pathFault(target));
  if (typeof target !== 'string' || fault !== undefined) {
    throw entryError(header, `hard link to ${quoteName(header.linkName)}: ${fault}`);
  }
  return target;
}

/** Metadata of a directory that only this entry's path implies: the entry's time, nothing else. */
export function impliedDirectoryMetadata(header: TarHeader): FileMetadata {
  const time = filetime(header, header.mtime, 'mtime');
  return {
    attributes: FileAttribute.directory,
    size: 0,
    creationTime: time,
    lastWriteTime: time,
    changeTime: time,
    lastAccessTime: time,
  };
}

function readMetadata(header: TarHeader): FileMetadata {
  const lastWriteTime = filetime(header, header.mtime, 'mtime');
  const created = header.records.get('LIBARCHIVE.creationtime');
  return {
    attributes: readAttributes(header),
    size: header.size,
    creationTime: created === undefined ? lastWriteTime : readCreationTime(header, created),
    lastWriteTime,
    changeTime: header.ctime === undefined ? lastWriteTime : filetime(header, header.ctime, 'ctime'),
    lastAccessTime: header.atime === undefined ? lastWriteTime : filetime(header, header.atime, 'atime'),
    securityDescriptor: readSecurityDescriptor(header),
    reparseData: header.type === 'symlink' ? readReparse(header) : undefined,
    extendedAttributes: readExtendedAttributes(header),
  };
}

function readAttributes(header: TarHeader): number {
  const isLink = header.type === 'symlink';
  const text = header.records.get('MSWINDOWS.fileattr');
  if (text === undefined) {
    // A mount point is always on a directory; of a symlink without attributes nobody knows.
    if (isLink && header.records.has('MSWINDOWS.mountpoint')) {
      return FileAttribute.reparsePoint | FileAttribute.directory;
    }
    if (isLink) return FileAttribute.reparsePoint;
    return header.type === 'directory' ? FileAttribute.directory : 0;
  }
  const attributes = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (!(attributes <= 0xffff_ffff)) {
    throw entryError(header, `MSWINDOWS.fileattr ${quoteName(text)} is no 32-bit number`);
  }
  const isDirectory = (attributes & FileAttribute.directory) !== 0;
  if (header.type === 'directory' && !isDirectory) {
    throw entryError(header, `a directory whose attributes (${attributes}) don't say so`);
  }
  if (header.type === 'file' && isDirectory) {
    throw entryError(header, `a file whose attributes (${attributes}) say it is a directory`);
  }
  // Other kinds of reparse points lose their data on the way into a tar; the attribute alone would be a lie.
  const plain = attributes & ~FileAttribute.reparsePoint;
  return (isLink ? plain | FileAttribute.reparsePoint : plain) >>> 0;
}

function filetime(header: TarHeader, time: bigint, which: string): bigint {
  const result = filetimeFromUnix(time);
  if (result === undefined) throw entryError(header, `${which} is outside of what Windows can express`);
  return result;
}

function readCreationTime(header: TarHeader, text: string): bigint {
  const time = parsePaxTime(text);
  if (time === undefined) throw entryError(header, `malformed LIBARCHIVE.creationtime ${quoteName(text)}`);
  return filetime(header, time, 'creation time');
}

function decodeBase64(header: TarHeader, keyword: string, text: string): Buffer {
  if (text.length % 4 !== 0 || !BASE64.test(text)) throw entryError(header, `${keyword} is not valid base64`);
  return Buffer.from(text, 'base64');
}

function readSecurityDescriptor(header: TarHeader): Buffer | undefined {
  const raw = header.records.get('MSWINDOWS.rawsd');
  if (raw === undefined) {
    const text = header.records.get('MSWINDOWS.sd');
    return text === undefined ? undefined : readSddl(header, text);
  }
  const descriptor = decodeBase64(header, 'MSWINDOWS.rawsd', raw);
  const fault = descriptorFault(descriptor);
  if (fault !== undefined) throw entryError(header, `malformed security descriptor: ${fault}`);
  return descriptor;
}

/** Old layers have descriptors as text. */
function readSddl(header: TarHeader, text: string): Buffer {
  const descriptor = encodeSddl(text);
  if ('fault' in descriptor) {
    throw entryError(
      header,
      `malformed MSWINDOWS.sd at character ${descriptor.position + 1}: ${descriptor.fault}`,
    );
  }
  const fault = descriptorFault(descriptor);
  if (fault !== undefined) throw entryError(header, `MSWINDOWS.sd: ${fault}`);
  return descriptor;
}

function readReparse(header: TarHeader): Buffer {
  const data = encodeReparse({
    target: header.linkName,
    isMountPoint: header.records.has('MSWINDOWS.mountpoint'),
  });
  if (typeof data === 'string') throw entryError(header, data);
  return data;
}

function readExtendedAttributes(header: TarHeader): Buffer | undefined {
  const keywords: string[] = [];
  for (const keyword of header.records.keys()) if (keyword.startsWith(EA_PREFIX)) keywords.push(keyword);
  if (keywords.length === 0) return undefined;
  const chain = encodeExtendedAttributes(
    keywords.sort().map((keyword) => ({
      name: keyword.slice(EA_PREFIX.length),
      value: decodeBase64(header, keyword, header.records.get(keyword) ?? ''),
    })),
  );
  if (typeof chain === 'string') throw entryError(header, chain);
  return chain;
}
