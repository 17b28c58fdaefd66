/**
 * The shapes of what a CIM keeps as bytes beside a file: security descriptors, extended attributes, reparse data.
 * Each function returns what is wrong, or undefined. Layouts: [MS-DTYP] 2.4.5 and 2.4.6, [MS-FSCC] 2.1.2 and 2.4.15.
 */

/** The descriptor of "no access control": revision 1, self-relative, a NULL DACL. Windows wants it instead of none. */
export const NULL_DACL_DESCRIPTOR = Buffer.from('0100048000000000000000000000000000000000', 'hex');

export const MAX_COUNTED_BLOB = 0xffff;

const SELF_RELATIVE = 0x8000;
const DACL_PRESENT = 0x4;
const SACL_PRESENT = 0x10;

function sidFault(bytes: Buffer, position: number, what: string): string | undefined {
  if (position + 8 > bytes.length) return `${what} lies outside the descriptor`;
  if (bytes.readUInt8(position) !== 1) return `${what} has revision ${bytes.readUInt8(position)}`;
  const authorities = bytes.readUInt8(position + 1);
  if (authorities > 15) return `${what} has ${authorities} sub-authorities`;
  return position + 8 + authorities * 4 > bytes.length ? `${what} lies outside the descriptor` : undefined;
}

function aclFault(bytes: Buffer, position: number, what: string): string | undefined {
  if (position + 8 > bytes.length) return `${what} lies outside the descriptor`;
  const end = position + bytes.readUInt16LE(position + 2);
  if (end > bytes.length || end < position + 8) return `${what}'s size is wrong`;
  let entry = position + 8;
  for (let i = bytes.readUInt16LE(position + 4); i > 0; i--) {
    if (entry + 4 > end) return `${what} ends within its entries`;
    const size = bytes.readUInt16LE(entry + 2);
    if (size < 4 || entry + size > end) return `an entry of ${what} has the wrong size`;
    entry += size;
  }
  return undefined;
}

/** Checks a self-relative SECURITY_DESCRIPTOR. */
export function securityDescriptorFault(data: Uint8Array): string | undefined {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  if (bytes.length < 20) return `a security descriptor has ${bytes.length} bytes`;
  if (bytes.length > MAX_COUNTED_BLOB) return `a security descriptor has ${bytes.length} bytes`;
  if (bytes.readUInt8(0) !== 1) return `a security descriptor has revision ${bytes.readUInt8(0)}`;
  const control = bytes.readUInt16LE(2);
  if ((control & SELF_RELATIVE) === 0) return 'a security descriptor is not self-relative';
  const [owner, group, sacl, dacl] = [4, 8, 12, 16].map((position) => bytes.readUInt32LE(position));
  return (
    (owner ? sidFault(bytes, owner, 'the owner SID') : undefined) ??
    (group ? sidFault(bytes, group, 'the group SID') : undefined) ??
    (sacl && control & SACL_PRESENT ? aclFault(bytes, sacl, 'the SACL') : undefined) ??
    (dacl && control & DACL_PRESENT ? aclFault(bytes, dacl, 'the DACL') : undefined)
  );
}

/** Checks a FILE_FULL_EA_INFORMATION chain. */
export function extendedAttributesFault(data: Uint8Array): string | undefined {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  if (bytes.length > MAX_COUNTED_BLOB) return `extended attributes have ${bytes.length} bytes`;
  for (let entry = 0; ; ) {
    if (entry + 9 > bytes.length) return `extended attributes end within the entry at ${entry}`;
    const next = bytes.readUInt32LE(entry);
    const nameLength = bytes.readUInt8(entry + 5);
    const size = 8 + nameLength + 1 + bytes.readUInt16LE(entry + 6);
    if (nameLength === 0) return `the extended attribute at ${entry} has no name`;
    if (entry + size > bytes.length) return `the extended attribute at ${entry} lies outside`;
    if (bytes.readUInt8(entry + 8 + nameLength) !== 0)
      return `the name of the extended attribute at ${entry} does not end in NUL`;
    if (next === 0) return undefined;
    if (next < size || next % 4 !== 0) return `the extended attribute at ${entry} has a wrong next offset`;
    entry += next;
  }
}

/** Checks a REPARSE_DATA_BUFFER's header. Tags that aren't Microsoft's carry a GUID between header and data. */
export function reparseDataFault(data: Uint8Array): string | undefined {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  if (bytes.length < 8) return `reparse data has ${bytes.length} bytes`;
  if (bytes.length > MAX_COUNTED_BLOB) return `reparse data has ${bytes.length} bytes`;
  const header = bytes.readUInt8(3) & 0x80 ? 8 : 24;
  const declared = bytes.readUInt16LE(4);
  if (declared + header !== bytes.length)
    return `reparse data declares ${declared} bytes and has ${bytes.length - header}`;
  return undefined;
}
