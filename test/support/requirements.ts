/** What a test needs of the machine: missing means a visible skip, or a failure when CIMLET_REQUIRE_ALL=1. */

import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

/** True when this process has user ID 0 (mounting, foreign owners). */
export const isRoot: boolean = process.getuid?.() === 0;

/** True when `name` is an executable file on the PATH. */
export function hasTool(name: string): boolean {
  const directories = (process.env.PATH ?? '').split(delimiter);
  return directories.some((directory) => directory !== '' && isExecutable(join(directory, name)));
}

/**
 * Says whether tests that need `name` can run, for `describe.runIf` and `it.runIf`. Throws instead of answering
 * false when CIMLET_REQUIRE_ALL=1, so that a machine meant to run everything can't skip anything unnoticed.
 *
 * @example describe.runIf(requireOrSkip('umoci', hasTool('umoci')))('layouts made by umoci', () => { … });
 */
export function requireOrSkip(name: string, available: boolean): boolean {
  if (!available && process.env.CIMLET_REQUIRE_ALL === '1') {
    throw new Error(`CIMLET_REQUIRE_ALL=1, but this machine has no ${name}`);
  }
  return available;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'EACCES' || code === 'ENOTDIR') return false;
    throw error;
  }
}
