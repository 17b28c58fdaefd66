/**
 * What a tar archive is made of, shared by reader and writer.
 * Sources: POSIX.1-2017 pax "ustar Interchange Format" and "pax Header Block", GNU tar manual "Basic Tar Format".
 */

import { CimletError, isErrorCode } from '../errors.ts';

export const BLOCK = 512;

/** An extended header (PAX records, GNU long names) may not be longer: what is real is a few KiB. */
export const MAX_EXTENDED_HEADER = 1 << 20;

/** Records read from extended headers, by keyword. */
export type PaxRecords = ReadonlyMap<string, string>;

export type TarEntryType =
  | 'file'
  | 'hard-link'
  | 'symlink'
  | 'character-device'
  | 'block-device'
  | 'directory'
  | 'fifo';

/** One entry with everything its headers say. Text is UTF-16; lone surrogates (WTF-8) survive. */
export interface TarHeader {
  name: string;
  type: TarEntryType;
  /** Bytes of data that follow; 0 for everything but files. */
  size: number;
  /** Target of hard links and symlinks, else ''. */
  linkName: string;
  mode: number;
  uid: number;
  gid: number;
  /** Nanoseconds since 1970. */
  mtime: bigint;
  atime: bigint | undefined;
  ctime: bigint | undefined;
  /** Of device files only. */
  device?: { major: number; minor: number } | undefined;
  /** Every PAX record in force, the well-known ones included. */
  records: PaxRecords;
  /** Byte offset in the tar of the entry's first block (its extended header, if it has one). */
  offset: number;
}

export const TYPE_FLAGS: Record<TarEntryType, string> = {
  file: '0',
  'hard-link': '1',
  symlink: '2',
  'character-device': '3',
  'block-device': '4',
  directory: '5',
  fifo: '6',
};

/** Entry type by type flag. */
export const ENTRY_TYPES: Record<string, TarEntryType> = {
  '\0': 'file',
  '0': 'file',
  '1': 'hard-link',
  '2': 'symlink',
  '3': 'character-device',
  '4': 'block-device',
  '5': 'directory',
  '6': 'fifo',
  '7': 'file',
};

/** Type flags that mean something no layer needs, and what. */
export const UNREADABLE: Record<string, string> = {
  S: 'sparse files in GNU format are not supported',
  M: 'archives of several volumes are not supported',
  D: 'GNU incremental dumps are not supported',
  N: 'GNU old-style long names are not supported',
};

/** Where the fields of a header block are: offset and length. */
export const Field = {
  name: [0, 100],
  mode: [100, 8],
  uid: [108, 8],
  gid: [116, 8],
  size: [124, 12],
  mtime: [136, 12],
  checksum: [148, 8],
  typeFlag: [156, 1],
  linkName: [157, 100],
  magic: [257, 6],
  version: [263, 2],
  devMajor: [329, 8],
  devMinor: [337, 8],
  prefix: [345, 155],
} as const satisfies Record<string, readonly [number, number]>;

/** A name fit for a message: quoted, control characters escaped, cut when very long. */
export function quoteName(name: string): string {
  return JSON.stringify(name.length > 240 ? `${name.slice(0, 160)}…${name.slice(-60)}` : name);
}

/** An entry, as messages name it. */
export interface EntryPlace {
  name: string;
  offset: number;
}

/** The error for an entry that breaks a rule: names the entry and where in the tar it starts. */
export function entryError(
  entry: EntryPlace,
  reason: string,
  options: { hint?: string; cause?: unknown } = {},
): CimletError {
  return new CimletError(
    'corrupt',
    `tar entry ${quoteName(entry.name)} at offset ${entry.offset}: ${reason}`,
    options,
  );
}

/** Does something for an entry: what the CIM writer then says of a bad layer gets the entry's name and place. */
export function forEntry<T>(entry: EntryPlace, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (!isErrorCode(error, 'corrupt', 'not-found', 'already-exists', 'failed-precondition')) throw error;
    if (error.message.startsWith('tar entry ')) throw error;
    throw entryError(entry, error.message, { cause: error });
  }
}
