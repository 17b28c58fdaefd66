/** The base block: the first 4 KiB of a hive file. */

import { CimletError } from '../errors.ts';
import { BASE_BLOCK_SIZE, BIN_ALIGNMENT, corruptHive } from './format.ts';
import type { Hive } from './model.ts';

/** Offsets in the base block. */
const BaseField = {
  primarySequence: 4,
  secondarySequence: 8,
  timestamp: 12,
  majorVersion: 20,
  minorVersion: 24,
  fileType: 28,
  fileFormat: 32,
  rootCell: 36,
  binsSize: 40,
  clusteringFactor: 44,
  fileName: 48,
  flags: 144,
} as const;
/** Where the offset of the root key stands. */
export const ROOT_CELL_FIELD = BaseField.rootCell;
const CHECKSUM_OFFSET = 508;
const FILE_NAME_SIZE = 64;
const MAX_FILE_NAME = FILE_NAME_SIZE / 2 - 1;
/** The file type that is not a transaction log. */
const PRIMARY_FILE = 0;

/** Flag of the base block: the hive may hold layered keys. */
const LAYERED_KEYS_FLAG = 0x2;

export interface BaseBlock extends Omit<Hive, 'root'> {
  minorVersion: number;
  rootCell: number;
  binsSize: number;
}

export interface NewBaseBlock extends Pick<Hive, 'timestamp' | 'fileName'> {
  rootCell: number;
  binsSize: number;
  hasLayers: boolean;
}

/** Checks and reads the base block at the start of a primary file; all bins are there. */
export function decodeBaseBlock(bytes: Buffer, name: string): BaseBlock {
  const fault = (offset: number, message: string): CimletError => corruptHive(name, offset, message);
  if (bytes.toString('latin1', 0, 4) !== 'regf') throw fault(0, 'not a registry hive (no "regf")');
  if (bytes.length < BASE_BLOCK_SIZE) throw fault(bytes.length, 'the file ends within its base block');
  if (bytes.readUInt32LE(CHECKSUM_OFFSET) !== checksum(bytes))
    throw fault(CHECKSUM_OFFSET, 'the checksum of the base block is wrong');
  const minorVersion = requireVersion(bytes, name);
  const fileType = bytes.readUInt32LE(BaseField.fileType);
  if (fileType !== PRIMARY_FILE)
    throw fault(BaseField.fileType, `not a hive but a transaction log (file type ${fileType})`);
  const binsSize = bytes.readUInt32LE(BaseField.binsSize);
  if (binsSize % BIN_ALIGNMENT !== 0)
    throw fault(BaseField.binsSize, `hive bins cannot have ${binsSize} bytes`);
  if (binsSize > bytes.length - BASE_BLOCK_SIZE)
    throw fault(bytes.length, `the file ends within its ${binsSize} bytes of hive bins`);
  const fileName = bytes.toString('utf16le', BaseField.fileName, BaseField.fileName + FILE_NAME_SIZE);
  return {
    minorVersion,
    rootCell: bytes.readUInt32LE(BaseField.rootCell),
    binsSize,
    timestamp: bytes.readBigUInt64LE(BaseField.timestamp),
    fileName: fileName.replace(/\0.*$/s, ''),
    dirty: bytes.readUInt32LE(BaseField.primarySequence) !== bytes.readUInt32LE(BaseField.secondarySequence),
  };
}

function requireVersion(bytes: Buffer, name: string): number {
  const major = bytes.readUInt32LE(BaseField.majorVersion);
  const minor = bytes.readUInt32LE(BaseField.minorVersion);
  if (major === 1 && minor >= 2 && minor <= 6) return minor;
  throw new CimletError(
    'corrupt',
    `read hive ${name}: format version ${major}.${minor} cannot be read, only 1.2 to 1.6`,
  );
}

/** The base block of a clean hive: version 1.5, or 1.6 if there are layered keys. Of the file name the end is kept. */
export function encodeBaseBlock(fields: NewBaseBlock): Buffer {
  const { hasLayers } = fields;
  const block = Buffer.alloc(BASE_BLOCK_SIZE);
  block.write('regf', 0, 'latin1');
  block.writeUInt32LE(1, BaseField.primarySequence);
  block.writeUInt32LE(1, BaseField.secondarySequence);
  block.writeBigUInt64LE(fields.timestamp, BaseField.timestamp);
  block.writeUInt32LE(1, BaseField.majorVersion);
  block.writeUInt32LE(hasLayers ? 6 : 5, BaseField.minorVersion);
  block.writeUInt32LE(1, BaseField.fileFormat);
  block.writeUInt32LE(fields.rootCell, BaseField.rootCell);
  block.writeUInt32LE(fields.binsSize, BaseField.binsSize);
  block.writeUInt32LE(1, BaseField.clusteringFactor);
  block.write(fields.fileName.slice(-MAX_FILE_NAME), BaseField.fileName, 'utf16le');
  block.writeUInt32LE(hasLayers ? LAYERED_KEYS_FLAG : 0, BaseField.flags);
  block.writeUInt32LE(checksum(block), CHECKSUM_OFFSET);
  return block;
}

/** The checksum of a base block: its first 508 bytes as words, joined by XOR; never 0 or 0xffffffff. */
function checksum(block: Buffer): number {
  let sum = 0;
  for (let at = 0; at < CHECKSUM_OFFSET; at += 4) sum ^= block.readInt32LE(at);
  if (sum === -1) return 0xfffffffe;
  return sum === 0 ? 1 : sum >>> 0;
}
