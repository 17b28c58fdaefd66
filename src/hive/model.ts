/**
 * A registry hive as a tree. The objects are plain and never changed once made, so that merged trees can share what
 * they have in common. Subkeys are sorted by name without case and unique; values keep the order of the file.
 */

import { upcaseName } from './names.ts';

export interface Hive {
  root: HiveKey;
  /** When the hive was last written: FILETIME, 100 ns since 1601. */
  timestamp: bigint;
  /** The end of the path that the writer knew the file by: at most 31 units, only for debugging. */
  fileName: string;
  /** True when the file was left in the middle of a write, so that its transaction logs may hold newer data. */
  dirty: boolean;
}

export interface HiveKey {
  /** At most 256 UTF-16 units, without a backslash. The root's name carries no meaning. */
  name: string;
  className: string | undefined;
  /** FILETIME of the last write. */
  timestamp: bigint;
  /** Self-relative security descriptor; keys with the same one share the buffer. */
  security: Buffer | undefined;
  /** Bits of `KeyFlag`, without those that say how the key is stored. */
  flags: number;
  /** Virtualization flags, user flags and debug bits as the key node packs them into 16 bits. */
  virtualization: number;
  /** The handle of a key with `KeyFlag.predefinedHandle`, which has no values. */
  predefinedHandle: number | undefined;
  layer: LayerSemantics;
  /** In a delta: the class name is that of the same key below. */
  inheritsClass: boolean;
  values: readonly HiveValue[];
  subkeys: readonly HiveKey[];
}

export interface HiveValue {
  /** At most 16,383 UTF-16 units; empty for the key's default value. */
  name: string;
  /** One of `ValueType`, or any other number. */
  type: number;
  data: Buffer;
  /** In a delta: the value of this name below is deleted. */
  tombstone: boolean;
}

/** What a key of a delta does with the same key of the hives below it. In a hive of its own all keys `merge`. */
export type LayerSemantics = 'merge' | 'tombstone' | 'supersede-local' | 'supersede-tree';

export const KeyFlag = {
  noDelete: 0x0008,
  symbolicLink: 0x0010,
  predefinedHandle: 0x0040,
} as const;

export const ValueType = {
  none: 0,
  string: 1,
  expandString: 2,
  binary: 3,
  dword: 4,
  dwordBigEndian: 5,
  link: 6,
  multiString: 7,
  resourceList: 8,
  fullResourceDescriptor: 9,
  resourceRequirementsList: 10,
  qword: 11,
} as const;

/** Keys below the root may nest this deep, as in Windows. */
export const MAX_DEPTH = 512;
export const MAX_KEY_NAME = 256;
export const MAX_VALUE_NAME = 16_383;

/** A key with defaults for what `fields` leaves out; sorts the subkeys. */
export function createKey(name: string, fields: Partial<Omit<HiveKey, 'name'>> = {}): HiveKey {
  return {
    name,
    className: undefined,
    timestamp: 0n,
    security: undefined,
    flags: 0,
    virtualization: 0,
    predefinedHandle: undefined,
    layer: 'merge',
    inheritsClass: false,
    values: [],
    ...fields,
    subkeys: sortByName(fields.subkeys ?? []),
  };
}

export function createValue(name: string, type: number, data: Buffer): HiveValue {
  return { name, type, data, tombstone: false };
}

/** A clean hive around a root key. */
export function createHive(root: HiveKey, fields: Partial<Omit<Hive, 'root'>> = {}): Hive {
  return { root, timestamp: root.timestamp, fileName: '', dirty: false, ...fields };
}

/** The keys in the order of their names without case; the same array if they already are. */
export function sortByName(keys: readonly HiveKey[]): readonly HiveKey[] {
  const named = keys.map((key) => ({ key, upcased: upcaseName(key.name) }));
  const sorted = named.every(({ upcased }, i) => i === 0 || (named[i - 1]?.upcased ?? '') <= upcased);
  if (sorted) return keys;
  named.sort((a, b) => (a.upcased < b.upcased ? -1 : a.upcased > b.upcased ? 1 : 0));
  return named.map(({ key }) => key);
}

/** The first name that occurs twice when case doesn't count. */
export function findDuplicate(items: readonly { name: string }[]): string | undefined {
  if (items.length < 2) return undefined;
  const seen = new Set<string>();
  for (const { name } of items) {
    if (seen.size === seen.add(upcaseName(name)).size) return name;
  }
  return undefined;
}
