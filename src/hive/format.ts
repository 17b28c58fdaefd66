/**
 * The regf format, versions 1.2 to 1.6: where fields are and what they hold. All numbers are little-endian; offsets in
 * the file count from the end of the base block.
 *
 * Facts: Maxim Suhanov's "Windows registry file format specification" (github.com/msuhanov/regf).
 */

import { CimletError } from '../errors.ts';
import type { LayerSemantics } from './model.ts';

export const BASE_BLOCK_SIZE = 4096;
export const BIN_ALIGNMENT = 4096;
export const BIN_HEADER_SIZE = 32;
export const CELL_ALIGNMENT = 8;
export const KEY_NODE_SIZE = 76;
export const KEY_VALUE_SIZE = 20;
export const KEY_SECURITY_SIZE = 20;
/** The two-byte signature and the count at the start of every list of subkeys. */
export const LIST_HEADER_SIZE = 4;
export const OFFSET_SIZE = 4;
/** An offset that points nowhere. */
export const NOWHERE = 0xffffffff;

/** From minor version 4 on, data longer than this is cut into segments of this size. */
export const SEGMENT_SIZE = 16_344;
export const FIRST_MINOR_WITH_SEGMENTS = 4;
/** Data up to this size lies in the value's record itself. */
export const INLINE_SIZE = 4;
export const INLINE_BIT = 0x80000000;

/** What fits beside a bin's header into 4 KiB: longer lists are split and joined by an `ri` list, as Windows does. */
export const MAX_LEAF_ENTRIES = 507;

/** Bits of a key node's flags that say how it is stored, or what is only true in memory. */
export const StorageFlag = {
  volatile: 0x0001,
  hiveExit: 0x0002,
  root: 0x0004,
  compressedName: 0x0020,
} as const;
export const STORAGE_FLAGS = 0x0001 | 0x0002 | 0x0004 | 0x0020;

export const ValueFlag = { compressedName: 0x0001, tombstone: 0x0002 } as const;

/** Offsets in a key node. */
export const KeyField = {
  flags: 2,
  timestamp: 4,
  /** The second byte of the old access bits. */
  layer: 13,
  parent: 16,
  subkeyCount: 20,
  volatileSubkeyCount: 24,
  subkeyList: 28,
  volatileSubkeyList: 32,
  valueCount: 36,
  valueList: 40,
  security: 44,
  className: 48,
  largestSubkeyName: 52,
  virtualization: 54,
  largestSubkeyClass: 56,
  largestValueName: 60,
  largestValueData: 64,
  nameLength: 72,
  classLength: 74,
} as const;

/** Offsets in a key value. */
export const ValueField = {
  nameLength: 2,
  dataSize: 4,
  dataOffset: 8,
  type: 12,
  flags: 16,
} as const;

/** Offsets in a key security record. */
export const SecurityField = { next: 4, previous: 8, referenceCount: 12, size: 16 } as const;

/** The low two bits of a key node's layer byte, in this order. */
const SEMANTICS: readonly LayerSemantics[] = ['merge', 'tombstone', 'supersede-local', 'supersede-tree'];
const SEMANTICS_MASK = 0x03;
const INHERIT_CLASS_BIT = 0x80;

export function decodeLayer(byte: number): { layer: LayerSemantics; inheritsClass: boolean } {
  return {
    layer: SEMANTICS[byte & SEMANTICS_MASK] ?? 'merge',
    inheritsClass: (byte & INHERIT_CLASS_BIT) !== 0,
  };
}

export function encodeLayer(layer: LayerSemantics, inheritsClass: boolean): number {
  return SEMANTICS.indexOf(layer) | (inheritsClass ? INHERIT_CLASS_BIT : 0);
}

export function alignUp(size: number, alignment: number): number {
  return Math.ceil(size / alignment) * alignment;
}

/** The error for a malformed structure. `offset` is in bytes from the start of the file. */
export function corruptHive(name: string, offset: number, message: string): CimletError {
  return new CimletError('corrupt', `read hive ${name}: offset 0x${offset.toString(16)}: ${message}`);
}
