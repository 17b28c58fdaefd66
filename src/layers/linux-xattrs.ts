/** Extended attributes of Linux files in layer tars: PAX records, as GNU tar and containerd write them. Names are byte strings. */

import { CimletError } from '../errors.ts';
import type { Xattr } from '../ext4/xattrs.ts';
import { XATTR_RECORD } from '../tar/pax.ts';

/** What overlayfs keeps for itself, and obeys: a layer's tar has other words for it (whiteouts), or none. */
export const OVERLAY_PREFIX = 'trusted.overlay.';

/** Records of a file's attributes; `path` is a byte string, for errors. Throws `failed-precondition` for a name that a record can't hold. */
export function xattrRecords(xattrs: Iterable<Xattr>, path: string): Record<string, string> {
  const records: Record<string, string> = {};
  for (const { name, value } of xattrs) {
    // The first one ends a record's name. GNU tar writes %3D, which others take literally.
    if (name.includes('='))
      throw new CimletError(
        'failed-precondition',
        `${JSON.stringify(textOf(path))} has the extended attribute ${JSON.stringify(textOf(name))}: no name with a '=' fits a layer tar`,
        { hint: 'remove it (setfattr -x)' },
      );
    records[XATTR_RECORD + name] = value.toString('latin1');
  }
  return records;
}

/** Those of a tar's entry. */
export function xattrsOf(records: ReadonlyMap<string, string>): Xattr[] {
  return [...records].flatMap(([keyword, value]) =>
    keyword.startsWith(XATTR_RECORD)
      ? [{ name: keyword.slice(XATTR_RECORD.length), value: Buffer.from(value, 'latin1') }]
      : [],
  );
}

function textOf(bytes: string): string {
  return Buffer.from(bytes, 'latin1').toString();
}
