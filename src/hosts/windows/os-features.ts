/** What images may ask of a Windows besides its version. Source: OCI image-spec v1.1, config.md, "os.features". */

import { existsSync } from 'node:fs';
import { join } from 'node:path';

/** `win32k` is the driver of windows on the screen, which Nano Server comes without. */
export function windowsFeatures(systemRoot: string): string[] {
  return existsSync(join(systemRoot, 'System32', 'win32k.sys')) ? ['win32k'] : [];
}
