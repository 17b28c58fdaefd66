/** Files beside an image that hold what isn't needed before its end. */

import { randomUUID } from 'node:crypto';
import { openSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';

/** Makes a file in `directory` that has no name any more: nothing is left over, however this ends. Returns its descriptor, to read and write. */
export function openNameless(directory: string, purpose: string): number {
  const path = join(directory, `tmp-${purpose}-${randomUUID()}`);
  const descriptor = openSync(path, 'wx+', 0o600);
  unlinkSync(path);
  return descriptor;
}
