/** Where the members of a tar are, from one pass over its headers; nothing is extracted, and no content is read. */

import type { FileHandle } from 'node:fs/promises';
import { CimletError, isErrorCode } from '../errors.ts';
import { BLOCK, type TarHeader } from '../tar/tar-format.ts';
import { TarReader } from '../tar/tar-reader.ts';

/** An image archive has a few members a layer; far more than this is no image. */
const MOST_MEMBERS = 100_000;
const ZEROS = Buffer.alloc(1 << 20);

export type TarMember =
  | { kind: 'file'; offset: number; size: number }
  /** `target` as written: relative to the link's folder for a symlink, to the root of the tar for a hard link. */
  | { kind: 'symlink' | 'hardlink'; target: string }
  | { kind: 'other' };

/**
 * Reads the headers of the tar in `handle` (`fileSize` bytes) and returns its members by name as written; of several
 * with one name the last counts. Throws `corrupt` with the offset of what is wrong.
 */
export async function indexTar(
  handle: FileHandle,
  fileSize: number,
  name: string,
  signal: AbortSignal,
): Promise<Map<string, TarMember>> {
  const members = new Map<string, TarMember>();
  const corrupt = (what: string) => new CimletError('corrupt', `${name}: ${what}`);
  /** Of the entry whose header was read last. */
  let entry = { offset: 0, size: 0 };
  const reader = new TarReader({
    entry(header) {
      entry = header;
      members.set(header.name, memberOf(header, offset + BLOCK));
      if (members.size > MOST_MEMBERS) throw corrupt(`more than ${MOST_MEMBERS} members`);
    },
    data: () => undefined,
    end: () => undefined,
  });

  let offset = 0;
  const readBlocks = async (): Promise<void> => {
    for (let zeroBlocks = 0; offset < fileSize && zeroBlocks < 2; ) {
      if (signal.aborted)
        throw new CimletError('cancelled', `read ${name}: cancelled`, { cause: signal.reason });
      const block = await readAt(handle, offset, BLOCK);
      if (block.length === 0) break;
      zeroBlocks = ZEROS.compare(block, 0, block.length, 0, block.length) === 0 ? zeroBlocks + 1 : 0;
      entry = { offset: 0, size: 0 };
      reader.write(block);
      offset += block.length;
      if (offset + entry.size > fileSize)
        throw corrupt(`the member at offset ${entry.offset}, of ${entry.size} bytes, goes beyond the end`);
      const stored = Math.min(Math.ceil(entry.size / BLOCK) * BLOCK, fileSize - offset);
      passOver(reader, stored);
      offset += stored;
    }
    reader.finish();
  };
  try {
    await readBlocks();
  } catch (error) {
    if (!isErrorCode(error, 'corrupt') || error.message.startsWith(`${name}: `)) throw error;
    const { message, hint } = error;
    const what = members.size === 0 ? `not a tar: ${message}` : message;
    throw new CimletError('corrupt', `${name}: ${what}`, { hint, cause: error });
  }
  if (members.size === 0) throw corrupt('not a tar: it has no members');
  return members;
}

function memberOf({ type, size, linkName }: TarHeader, offset: number): TarMember {
  if (type === 'file') return { kind: 'file', offset, size };
  if (type === 'hard-link') return { kind: 'hardlink', target: linkName };
  return type === 'symlink' ? { kind: 'symlink', target: linkName } : { kind: 'other' };
}

/** Nobody looks at the content: zeros in its place bring the reader to the next header. */
function passOver(reader: TarReader, bytes: number): void {
  for (let left = bytes; left > 0; left -= ZEROS.length) reader.write(ZEROS.subarray(0, left));
}

async function readAt(handle: FileHandle, offset: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  const { bytesRead } = await handle.read(buffer, 0, length, offset);
  return buffer.subarray(0, bytesRead);
}
