/** Names of keys and values: how they compare, hash, and are stored. */

/**
 * The name as the registry compares names: each UTF-16 unit in upper case on its own. As in Windows a letter never
 * becomes two (ß stays ß), and no letter outside ASCII becomes an ASCII one. Letters that Unicode added lately follow
 * the runtime.
 */
export function upcaseName(name: string): string {
  for (let i = 0; i < name.length; i++) {
    if (name.charCodeAt(i) > 0x7f)
      return Array.from({ length: name.length }, (_, at) => upcaseUnit(name, at)).join('');
  }
  return name.toUpperCase();
}

function upcaseUnit(name: string, at: number): string {
  const unit = name.charAt(at);
  const upper = unit.toUpperCase();
  return upper.length !== 1 || (upper < '\x80' && unit >= '\x80') ? unit : upper;
}

/** The hash beside a key's offset in an `lh` list: 37 × hash + unit over the upper-case name, modulo 2^32. */
export function hashName(name: string): number {
  const upcased = upcaseName(name);
  let hash = 0;
  for (let i = 0; i < upcased.length; i++) hash = (Math.imul(hash, 37) + upcased.charCodeAt(i)) >>> 0;
  return hash;
}

export interface StoredName {
  bytes: Buffer;
  /** One byte per unit, which every name of units below 256 gets; otherwise UTF-16LE. Windows says so of no name "". */
  compressed: boolean;
}

export function encodeName(name: string): StoredName {
  const compressed = name !== '' && isLatin1(name);
  return { bytes: Buffer.from(name, compressed ? 'latin1' : 'utf16le'), compressed };
}

function isLatin1(name: string): boolean {
  for (let i = 0; i < name.length; i++) if (name.charCodeAt(i) > 0xff) return false;
  return true;
}
