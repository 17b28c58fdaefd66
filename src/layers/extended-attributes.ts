/** Extended attributes as a FILE_FULL_EA_INFORMATION chain. Source: MS-FSCC 2.4.16. */

export interface ExtendedAttribute {
  name: string;
  value: Uint8Array;
  flags?: number;
}

const HEADER = 8;
const MAX_NAME = 255;
const MAX_VALUE = 65_535;
/** The length field of a CIM's file entry has 16 bits. */
const MAX_CHAIN = 65_535;

/** Encodes a chain in the order given; a string says why it can't be. Every entry is padded to 4 bytes, the last too. */
export function encodeExtendedAttributes(attributes: readonly ExtendedAttribute[]): Buffer | string {
  const entries: Buffer[] = [];
  for (const [index, { name, value, flags = 0 }] of attributes.entries()) {
    const nameBytes = Buffer.from(name, 'utf8');
    if (name === '' || name.includes('\0') || nameBytes.length > MAX_NAME) {
      return `extended attribute name ${JSON.stringify(name.slice(0, 80))} is not 1 to ${MAX_NAME} bytes without NUL`;
    }
    if (value.length > MAX_VALUE)
      return `extended attribute ${JSON.stringify(name)} has ${value.length} bytes; at most ${MAX_VALUE} fit`;
    const entry = Buffer.alloc((HEADER + nameBytes.length + 1 + value.length + 3) & ~3);
    entry.writeUInt32LE(index === attributes.length - 1 ? 0 : entry.length, 0);
    entry.writeUInt8(flags, 4);
    entry.writeUInt8(nameBytes.length, 5);
    entry.writeUInt16LE(value.length, 6);
    nameBytes.copy(entry, HEADER);
    entry.set(value, HEADER + nameBytes.length + 1);
    entries.push(entry);
  }
  const chain = Buffer.concat(entries);
  return chain.length > MAX_CHAIN
    ? `extended attributes take ${chain.length} bytes; at most ${MAX_CHAIN} fit`
    : chain;
}

/** Reads a chain; undefined when it is malformed. */
export function decodeExtendedAttributes(chain: Uint8Array): ExtendedAttribute[] | undefined {
  const buffer = Buffer.from(chain.buffer, chain.byteOffset, chain.byteLength);
  const attributes: ExtendedAttribute[] = [];
  let at = 0;
  while (at < buffer.length) {
    if (at + HEADER > buffer.length) return undefined;
    const next = buffer.readUInt32LE(at);
    const nameEnd = at + HEADER + buffer.readUInt8(at + 5);
    const valueEnd = nameEnd + 1 + buffer.readUInt16LE(at + 6);
    if (valueEnd > buffer.length || (next !== 0 && (next < valueEnd - at || at + next >= buffer.length)))
      return undefined;
    attributes.push({
      name: buffer.toString('utf8', at + HEADER, nameEnd),
      value: buffer.subarray(nameEnd + 1, valueEnd),
      flags: buffer.readUInt8(at + 4),
    });
    if (next === 0) break;
    at += next;
  }
  return attributes;
}
