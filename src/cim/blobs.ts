/**
 * The shapes of what a CIM keeps as bytes beside a file: security descriptors, extended attributes, reparse data.
 * Each function returns what is wrong, or undefined. Layouts: [MS-DTYP] 2.4.5 and 2.4.6, [MS-FSCC] 2.1.2 and 2.4.15.
 */

import { descriptorFault } from './security-descriptor.ts';

/** The descriptor of "no access control": revision 1, self-relative, a NULL DACL. Windows wants it instead of none. */
export const NULL_DACL_DESCRIPTOR = Buffer.from('0100048000000000000000000000000000000000', 'hex');

const MAX_COUNTED_BLOB = 0xffff;

/** Checks a self-relative SECURITY_DESCRIPTOR. */
export function securityDescriptorFault(data: Uint8Array): string | undefined {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  const fault = descriptorFault(bytes);
  return fault === undefined ? undefined : `malformed security descriptor: ${fault}`;
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
