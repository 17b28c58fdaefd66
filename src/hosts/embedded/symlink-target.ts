import { decodeReparse } from '../../layers/reparse.ts';
import { encodeText } from '../../tar/tar-text.ts';

/** The kernel takes targets of at most one page, with its terminator. */
const MAX_TARGET_BYTES = 4095;

/**
 * Reparse data as the target of a POSIX symbolic link: `\` becomes `/`; a target on drive C: is shown from `/` on, where a
 * container's root is; any other drive, volume or share keeps its name (`D:/x`, `//server/share`). Undefined when it
 * is no link, is malformed, or has a target that POSIX can't say.
 */
export function symlinkTarget(reparseData: Uint8Array): Buffer | undefined {
  const link = decodeReparse(reparseData);
  if (link === undefined || link.target.includes('\0')) return undefined;
  const target = encodeText(posixPath(link.target));
  return target.length === 0 || target.length > MAX_TARGET_BYTES ? undefined : target;
}

function posixPath(target: string): string {
  const path = target
    .replace(/^\\\\\?\\UNC\\/i, '\\\\')
    .replace(/^\\\\\?\\/, '')
    .replaceAll('\\', '/');
  if (/^c:\/?$/i.test(path)) return '/';
  return path.replace(/^c:(?=\/)/i, '');
}
