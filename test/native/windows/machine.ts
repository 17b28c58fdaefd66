/** Machines as far as what they can do depends on them. */

import type { WindowsFacts } from '../../../src/native/windows/capabilities.ts';
import { Dlls } from '../../../src/native/windows/dll.ts';
import { openWindowsApi } from '../../../src/native/windows/windows.ts';

/** Every DLL that the product opens, there and complete, but for `without`. */
export function machine(
  build: number,
  revision: number,
  without: readonly string[] = ['cimwriter.dll'],
): WindowsFacts {
  const dlls = openWindowsApi(new Dlls(() => [])).dlls.probe();
  return {
    build,
    revision,
    dlls: dlls.map((dll) =>
      without.includes(dll.file) ? dll : { ...dll, path: `C:\\Windows\\System32\\${dll.file}`, missing: [] },
    ),
    privileges: {
      SeBackupPrivilege: 'disabled',
      SeRestorePrivilege: 'disabled',
      SeSecurityPrivilege: 'disabled',
    },
  };
}
