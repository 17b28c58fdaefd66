/** Paths that views are shown at, as Windows compares them. */

import { realpath } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, resolve } from 'node:path';
import { CimletError, classify, isErrorCode } from '../../errors.ts';
import { foldName } from '../../layers/layer-tree.ts';

/** MAX_PATH without the backslash and the NUL that SetVolumeMountPointW wants; neither it nor the bind filter is documented to take more. */
const MOST_CHARACTERS = 258;

/** The form in which paths are compared. */
export function foldPath(path: string): string {
  return foldName(resolve(path));
}

/** Throws `invalid-manifest` for a path that no view can be shown at. */
export async function checkMountPath(path: string, root: string): Promise<void> {
  const refuse = (why: string) => new CimletError('invalid-manifest', `mount ${path}: ${why}`);
  if (!isAbsolute(path)) throw refuse('the path is not absolute');
  const normal = withoutNamespace(resolve(path));
  if (normal !== path.replaceAll('/', '\\')) throw refuse(`the path should be written as ${normal}`);
  if (normal.length > MOST_CHARACTERS)
    throw refuse(
      `it has ${normal.length} characters, and Windows mounts nothing at paths of more than ${MOST_CHARACTERS}`,
    );
  if (/[. ](\\|$)/.test(normal) || normal.includes(':', 2))
    throw refuse('Windows takes no names that end in a dot or a space, nor colons in them');
  const place = foldPath(await realLocation(normal));
  const realRoot = foldPath(await realLocation(root));
  if (isWithin(place, realRoot) || isWithin(realRoot, place))
    throw refuse(`the path lies inside or above the root ${root}`);
}

/** `\\?\C:\x` is `C:\x`. */
export function withoutNamespace(path: string): string {
  return path.replace(/^\\\\[?.]\\(?=[a-z]:\\)/i, '');
}

export function isWithin(path: string, directory: string): boolean {
  const below = directory.endsWith('\\') ? directory : `${directory}\\`;
  return path === directory || path.startsWith(below);
}

/** `path` with the links in what exists above it resolved, its own name kept. */
async function realLocation(path: string): Promise<string> {
  const parent = dirname(path);
  if (parent === path) return path;
  try {
    return join(await realpath(parent), basename(path));
  } catch (error) {
    const classified = classify(error, `look at ${parent}`);
    if (isErrorCode(classified, 'not-found')) return join(await realLocation(parent), basename(path));
    if (isErrorCode(classified, 'failed-precondition', 'access-denied', 'native')) return path;
    throw classified;
  }
}
