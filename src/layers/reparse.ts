/**
 * Symlinks and mount points as REPARSE_DATA_BUFFERs.
 * Source: MS-FSCC 2.1.2.4 (symbolic link) and 2.1.2.5 (mount point); NT paths as go-winio makes them.
 */

const REPARSE_TAG_SYMLINK = 0xa000000c;
const REPARSE_TAG_MOUNT_POINT = 0xa0000003;

/** MAXIMUM_REPARSE_DATA_BUFFER_SIZE. */
const MAX_REPARSE_DATA = 16_384;
const HEADER = 8;
const NAME_FIELDS = 8;
const SYMLINK_RELATIVE = 1;

export interface ReparseLink {
  /** The target as a person writes it (print name), with backslashes. */
  target: string;
  isMountPoint: boolean;
  /** Relative to the link (or to its volume, when it begins with a backslash). Never true of mount points. */
  isRelative: boolean;
}

/** Where the object manager finds an absolute target; undefined for relative ones. */
function ntTarget(target: string): string | undefined {
  if (target.startsWith('\\\\?\\')) return `\\??\\${target.slice(4)}`;
  if (target.startsWith('\\\\')) return `\\??\\UNC\\${target.slice(2)}`;
  if (/^[A-Za-z]:/.test(target)) return `\\??\\${target}`;
  return undefined;
}

/**
 * Encodes a link. `/` in the target becomes `\`. Returns why it can't be: an empty target, a NUL in it, one too long,
 * or a mount point with a relative target.
 */
export function encodeReparse(link: { target: string; isMountPoint: boolean }): Buffer | string {
  const target = link.target.replaceAll('/', '\\');
  if (target === '') return 'the link has no target';
  if (target.includes('\0')) return 'the link target has a NUL in it';
  const absolute = ntTarget(target);
  if (link.isMountPoint && absolute === undefined)
    return `a mount point needs an absolute target, not ${JSON.stringify(target.slice(0, 200))}`;
  const substitute = Buffer.from(`${absolute ?? target}\0`, 'utf16le');
  const print = Buffer.from(`${target}\0`, 'utf16le');
  const flags = link.isMountPoint ? 0 : 4;
  const size = NAME_FIELDS + flags + substitute.length + print.length;
  if (HEADER + size > MAX_REPARSE_DATA) return `the link target is too long (${target.length} UTF-16 units)`;

  const data = Buffer.alloc(HEADER + size);
  data.writeUInt32LE(link.isMountPoint ? REPARSE_TAG_MOUNT_POINT : REPARSE_TAG_SYMLINK, 0);
  data.writeUInt16LE(size, 4);
  // Names are counted without their terminating NUL.
  data.writeUInt16LE(0, 8);
  data.writeUInt16LE(substitute.length - 2, 10);
  data.writeUInt16LE(substitute.length, 12);
  data.writeUInt16LE(print.length - 2, 14);
  if (!link.isMountPoint) data.writeUInt32LE(absolute === undefined ? SYMLINK_RELATIVE : 0, 16);
  substitute.copy(data, HEADER + NAME_FIELDS + flags);
  print.copy(data, HEADER + NAME_FIELDS + flags + substitute.length);
  return data;
}

/** Reads a symlink or mount point; undefined for other tags and for malformed buffers. */
export function decodeReparse(data: Uint8Array): ReparseLink | undefined {
  const buffer = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  if (buffer.length < HEADER + NAME_FIELDS) return undefined;
  const tag = buffer.readUInt32LE(0);
  const isMountPoint = tag === REPARSE_TAG_MOUNT_POINT;
  if (!isMountPoint && tag !== REPARSE_TAG_SYMLINK) return undefined;
  const names = HEADER + NAME_FIELDS + (isMountPoint ? 0 : 4);
  const end = Math.min(buffer.length, HEADER + buffer.readUInt16LE(4));
  const name = (at: number): string | undefined => {
    const start = names + buffer.readUInt16LE(at);
    const stop = start + buffer.readUInt16LE(at + 2);
    return stop > end ? undefined : buffer.toString('utf16le', start, stop);
  };
  const substitute = name(8);
  const print = name(12);
  if (substitute === undefined || print === undefined || names > end) return undefined;
  return {
    target: print === '' ? substitute.replace(/^\\\?\?\\UNC\\/, '\\\\').replace(/^\\\?\?\\/, '') : print,
    isMountPoint,
    isRelative: !isMountPoint && (buffer.readUInt32LE(16) & SYMLINK_RELATIVE) !== 0,
  };
}
