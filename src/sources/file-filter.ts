/** Which files of a source are taken, by globs. */

import { posix } from 'node:path';

export interface FileFilter {
  include?: readonly string[] | undefined;
  ignore?: readonly string[] | undefined;
}

/**
 * Says of a path with slashes, relative to the source's root, whether the globs take it: any of `include` (everything
 * when omitted) and none of `ignore`. `**` spans folders; a glob that ends in a slash means all that is below.
 */
export function createFileFilter({ include, ignore = [] }: FileFilter): (path: string) => boolean {
  const included = include?.map(wholeGlob);
  const ignored = ignore.map(wholeGlob);
  const matches = (path: string) => (glob: string) => posix.matchesGlob(path, glob);
  return (path) => (included?.some(matches(path)) ?? true) && !ignored.some(matches(path));
}

function wholeGlob(glob: string): string {
  return glob.endsWith('/') ? `${glob}**` : glob;
}
