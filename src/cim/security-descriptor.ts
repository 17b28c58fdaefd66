/** Shape of self-relative security descriptors. Source: MS-DTYP 2.4.2 (SID), 2.4.5 (ACL), 2.4.6 (SECURITY_DESCRIPTOR). */

const HEADER = 20;
const SELF_RELATIVE = 0x8000;
const DACL_PRESENT = 0x0004;
const SACL_PRESENT = 0x0010;
const MAX_SUB_AUTHORITIES = 15;
/** A CIM stores the length in 16 bits. */
const MAX_DESCRIPTOR = 65_535;

/** Says what is wrong with a descriptor, undefined when it is well-formed. */
export function descriptorFault(descriptor: Buffer): string | undefined {
  if (descriptor.length < HEADER)
    return `it has ${descriptor.length} bytes; the header alone takes ${HEADER}`;
  if (descriptor.length > MAX_DESCRIPTOR)
    return `it has ${descriptor.length} bytes; at most ${MAX_DESCRIPTOR} fit`;
  const revision = descriptor.readUInt8(0);
  if (revision !== 1) return `its revision is ${revision}, not 1`;
  const control = descriptor.readUInt16LE(2);
  if ((control & SELF_RELATIVE) === 0) return 'it is not self-relative';
  return (
    sidFault(descriptor, descriptor.readUInt32LE(4), 'owner') ??
    sidFault(descriptor, descriptor.readUInt32LE(8), 'group') ??
    ((control & SACL_PRESENT) !== 0
      ? aclFault(descriptor, descriptor.readUInt32LE(12), 'SACL')
      : undefined) ??
    ((control & DACL_PRESENT) !== 0 ? aclFault(descriptor, descriptor.readUInt32LE(16), 'DACL') : undefined)
  );
}

function sidFault(descriptor: Buffer, at: number, which: string): string | undefined {
  if (at === 0) return undefined;
  if (at < HEADER || at + 8 > descriptor.length) return `its ${which} at ${at} lies outside`;
  const count = descriptor.readUInt8(at + 1);
  if (descriptor.readUInt8(at) !== 1 || count > MAX_SUB_AUTHORITIES) return `its ${which} is not a SID`;
  return at + 8 + 4 * count > descriptor.length ? `its ${which} is cut off` : undefined;
}

function aclFault(descriptor: Buffer, at: number, which: string): string | undefined {
  if (at === 0) return undefined;
  if (at < HEADER || at + 8 > descriptor.length) return `its ${which} at ${at} lies outside`;
  const revision = descriptor.readUInt8(at);
  if (revision < 1 || revision > 4) return `its ${which} has the unknown revision ${revision}`;
  const end = at + descriptor.readUInt16LE(at + 2);
  if (end > descriptor.length || end < at + 8) return `its ${which} is cut off`;
  let ace = at + 8;
  for (let left = descriptor.readUInt16LE(at + 4); left > 0; left--) {
    const size = ace + 4 <= end ? descriptor.readUInt16LE(ace + 2) : 0;
    if (size < 4 || ace + size > end) return `its ${which} has an entry that doesn't fit`;
    ace += size;
  }
  return undefined;
}
