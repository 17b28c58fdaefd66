/** /proc/self/mountinfo, parsed (format: Linux Documentation/filesystems/proc.rst, section 3.5). */

import { readFileSync } from 'node:fs';

export interface MountInfoEntry {
  id: number;
  parentId: number;
  /** "major:minor" of the mounted file system. */
  device: string;
  /** What of the file system is shown, as a path in it. */
  root: string;
  mountPoint: string;
  /** Whether what is mounted at the same place elsewhere appears here as well, and goes with it: mount_namespaces(7). */
  receives: boolean;
  type: string;
  source: string;
  /** The file system's own options, as it gives them. */
  options: string;
}

export function parseMountInfo(text: string): MountInfoEntry[] {
  const entries: MountInfoEntry[] = [];
  for (const line of text.split('\n')) {
    const fields = line.split(' ');
    const separator = fields.indexOf('-', 6);
    const [id, parentId, device, root, mountPoint] = fields;
    const [type, source, options] = fields.slice(separator + 1);
    if (separator < 0 || !device || !root || !mountPoint || !type) continue;
    entries.push({
      id: Number(id),
      parentId: Number(parentId),
      device,
      root: unescapeField(root),
      mountPoint: unescapeField(mountPoint),
      receives: fields.slice(6, separator).some((field) => /^(shared|master):/.test(field)),
      type,
      source: unescapeField(source ?? ''),
      options: unescapeField(options ?? ''),
    });
  }
  return entries;
}

export function readMountInfo(file = '/proc/self/mountinfo'): MountInfoEntry[] {
  return parseMountInfo(readFileSync(file, 'latin1'));
}

/** The mount that decides what is seen at `path`: of those stacked there, the one no other is mounted upon. */
export function topMountAt(entries: readonly MountInfoEntry[], path: string): MountInfoEntry | undefined {
  const stack = entries.filter(({ mountPoint }) => mountPoint === path);
  const below = new Set(stack.map(({ parentId }) => parentId));
  return stack.findLast(({ id }) => !below.has(id));
}

/** Space, tab, newline and backslash are written as three octal digits; the rest is raw UTF-8 (read as latin1 here). */
function unescapeField(field: string): string {
  const raw = field.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
  return Buffer.from(raw, 'latin1').toString('utf8');
}
