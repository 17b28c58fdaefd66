/** What writing a layer calls. For a job's thread, which opens its own. */

import { type BackupFiles, backupFiles } from '../../native/windows/backup.ts';
import type { CimWriteCalls } from '../../native/windows/cim-calls.ts';
import { Dlls } from '../../native/windows/dll.ts';
import { type FileFacts, fileFacts } from '../../native/windows/file-info.ts';
import type { Offreg } from '../../native/windows/offreg.ts';
import { openWindowsApi } from '../../native/windows/windows.ts';

export interface WritingCalls {
  calls: CimWriteCalls;
  facts: FileFacts;
  offreg: Offreg;
}

export interface BackupCalls {
  files: BackupFiles;
  facts: FileFacts;
}

export function openBackup(): BackupCalls {
  const dlls = new Dlls();
  return { files: backupFiles(dlls), facts: fileFacts(dlls) };
}

export function openWriting(): WritingCalls {
  const dlls = new Dlls();
  const api = openWindowsApi(dlls);
  return { calls: api.cimWriteCalls(), facts: fileFacts(dlls), offreg: api.offreg };
}
