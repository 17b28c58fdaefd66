/**
 * What POSIX cannot say about a file of a CIM, as extended attributes of the view. docs/view.md lists them for users.
 * Numbers and times are text: attributes as 0x hexadecimal, times as decimal FILETIMEs.
 */

import type { FileInfo, StreamInfo } from '../../cim/types.ts';
import { FileAttribute } from '../../cim/types.ts';
import { encodeText } from '../../tar/tar-text.ts';

export interface ViewXattr {
  name: string;
  value: Uint8Array;
}

export interface XattrRequest {
  info: FileInfo;
  /** Shown as a symbolic link: the kernel allows only `trusted.` there. */
  isSymlink: boolean;
  /** Names the view can't show. */
  realNames: readonly string[];
  streams: readonly StreamInfo[];
  readStream(stream: StreamInfo): Uint8Array;
}

/** Bytes of one value, of a name, and of all streams together that the kernel can hand out for one file. */
const MAX_VALUE_BYTES = 65_535;
const MAX_NAME_BYTES = 255;
const MAX_STREAMS_BYTES = 64 * 1024;
const MAX_STREAMS = 64;

/** Beginning of the names of attributes that hold alternate streams, and the name of the one that lists them. */
export const STREAM_PREFIX = 'stream.';
export const STREAMS = 'streams';

/** What all names begin with; of a symbolic link the kernel allows only `trusted.`. */
export function xattrPrefix(isSymlink: boolean): string {
  return isSymlink ? 'trusted.cim.' : 'user.cim.';
}

export function viewXattrs(request: XattrRequest): ViewXattr[] {
  const { info } = request;
  const prefix = xattrPrefix(request.isSymlink);
  const xattrs: ViewXattr[] = [];
  const add = (name: string, value: Uint8Array | string): void => {
    const bytes = typeof value === 'string' ? Buffer.from(value) : value;
    if (bytes.length <= MAX_VALUE_BYTES) xattrs.push({ name: prefix + name, value: bytes });
  };

  add('attributes', `0x${attributesOf(info).toString(16)}`);
  if (info.securityDescriptor !== undefined) add('sd', info.securityDescriptor);
  if (info.creationTime !== info.lastWriteTime) add('creationtime', info.creationTime.toString());
  if (info.lastAccessTime !== info.lastWriteTime) add('lastaccesstime', info.lastAccessTime.toString());
  if (info.changeTime !== info.lastWriteTime) add('changetime', info.changeTime.toString());
  if (info.extendedAttributes !== undefined && info.extendedAttributes.length > 0)
    add('ea', info.extendedAttributes);
  if (info.reparseData !== undefined && info.reparseData.length > 0) add('reparse', info.reparseData);
  if (request.realNames.length > 0) add('name', encodeText(request.realNames.join('/')));
  return [...xattrs, ...streamXattrs(request, prefix)];
}

function attributesOf(info: FileInfo): number {
  const implied =
    (info.isDirectory ? FileAttribute.directory : 0) |
    (info.reparseTag !== 0 ? FileAttribute.reparsePoint : 0);
  return info.attributes | implied;
}

/** Each stream as `stream.<name>`; if any doesn't fit, all are listed with their sizes in `streams`. */
function streamXattrs({ streams, readStream }: XattrRequest, prefix: string): ViewXattr[] {
  const xattrs: ViewXattr[] = [];
  let bytes = 0;
  let allFit = true;
  for (const stream of streams) {
    const name = prefix + STREAM_PREFIX + stream.name;
    const fits =
      stream.size <= MAX_VALUE_BYTES &&
      bytes + stream.size <= MAX_STREAMS_BYTES &&
      xattrs.length < MAX_STREAMS &&
      stream.name.isWellFormed() &&
      !stream.name.includes('\0') &&
      Buffer.byteLength(name) <= MAX_NAME_BYTES;
    allFit &&= fits;
    if (!fits) continue;
    bytes += stream.size;
    xattrs.push({ name, value: readStream(stream) });
  }
  if (!allFit) xattrs.push({ name: prefix + STREAMS, value: streamListing(streams) });
  return xattrs;
}

/** One line per stream, `<size> <name>`; what doesn't fit into a value is counted in a last line, `+<count>`. */
function streamListing(streams: readonly StreamInfo[]): Buffer {
  const lines: Buffer[] = [];
  let bytes = 0;
  for (const [index, { name, size }] of streams.entries()) {
    const line = Buffer.concat([Buffer.from(`${size} `), encodeText(name), Buffer.from('\n')]);
    bytes += line.length;
    if (bytes > MAX_VALUE_BYTES - 32) {
      lines.push(Buffer.from(`+${streams.length - index}\n`));
      break;
    }
    lines.push(line);
  }
  return Buffer.concat(lines);
}
