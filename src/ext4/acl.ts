/**
 * POSIX ACLs: as an extended attribute's value (linux/posix_acl_xattr.h, version 2) and as ext4 stores them (fs/ext4/acl.h, version 1),
 * where entries that need no ID have none.
 */

const VALUE_VERSION = 2;
const STORED_VERSION = 1;
const USER = 0x02;
const GROUP = 0x08;
const TAGS = new Set([0x01, USER, 0x04, GROUP, 0x10, 0x20]);

const hasId = (tag: number): boolean => tag === USER || tag === GROUP;

/** The stored form of an attribute's value; undefined when it isn't an ACL. */
export function storeAcl(value: Buffer): Buffer | undefined {
  if (value.length < 4 || value.length % 8 !== 4 || value.readUInt32LE(0) !== VALUE_VERSION) return undefined;
  const parts = [word(STORED_VERSION)];
  for (let at = 4; at < value.length; at += 8) {
    const tag = value.readUInt16LE(at);
    if (!TAGS.has(tag)) return undefined;
    parts.push(value.subarray(at, at + (hasId(tag) ? 8 : 4)));
  }
  return Buffer.concat(parts);
}

/** The attribute's value of a stored ACL; undefined when it isn't one. */
export function loadAcl(stored: Buffer): Buffer | undefined {
  if (stored.length < 4 || stored.readUInt32LE(0) !== STORED_VERSION) return undefined;
  const parts = [word(VALUE_VERSION)];
  for (let at = 4; at < stored.length; ) {
    if (at + 4 > stored.length) return undefined;
    const tag = stored.readUInt16LE(at);
    const length = hasId(tag) ? 8 : 4;
    if (at + length > stored.length) return undefined;
    parts.push(stored.subarray(at, at + length));
    if (length === 4) parts.push(word(0xffffffff));
    at += length;
  }
  return Buffer.concat(parts);
}

function word(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}
