/** Names of a CIM (UTF-16, up to 255 units) as names of a Linux directory (UTF-8, up to 255 bytes). */

import { createHash } from 'node:crypto';

const MAX_NAME_BYTES = 255;

/** Whether the view can show the name as it is. */
export function isPlainName(name: string): boolean {
  if (name === '.' || name === '..' || name.includes('/') || name.includes('\0')) return false;
  if (name.length <= 85) return name.isWellFormed();
  return name.isWellFormed() && Buffer.byteLength(name) <= MAX_NAME_BYTES;
}

/**
 * The names a directory's entries get in the view, in the given order. A name that can't be shown becomes its beginning, a
 * tilde and 16 hexadecimal digits of the SHA-256 of its UTF-16LE form; in the unlikely case that this is taken, a
 * number follows. Depends on the directory's names alone.
 */
export function viewNames(names: readonly string[]): string[] {
  if (names.every(isPlainName)) return [...names];
  const taken = new Set(names.filter(isPlainName));
  return names.map((name) => {
    if (isPlainName(name)) return name;
    const hash = createHash('sha256').update(name, 'utf16le').digest('hex').slice(0, 16);
    const beginning = utf8Prefix(name.toWellFormed().replace(/[/\0]/g, '\ufffd'), 200);
    for (let attempt = 0; ; attempt++) {
      const candidate = `${beginning}~${hash}${attempt === 0 ? '' : `~${attempt}`}`;
      if (taken.has(candidate)) continue;
      taken.add(candidate);
      return candidate;
    }
  });
}

function utf8Prefix(text: string, maxBytes: number): string {
  let bytes = 0;
  let prefix = '';
  for (const character of text) {
    bytes += Buffer.byteLength(character);
    if (bytes > maxBytes) break;
    prefix += character;
  }
  return prefix;
}
