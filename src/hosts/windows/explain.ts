/** What helps with "access denied" (0x5), "in use" (0x20) and "path not found" (0x3), which on Windows often mask something else. */

import { CimletError } from '../../errors.ts';
import type { FilterLibrary } from '../../native/windows/fltlib.ts';
import { isWin32Error } from '../../native/windows/native-error.ts';
import type { RestartManager } from '../../native/windows/rstrtmgr.ts';
import { Win32Error } from '../../native/windows/status.ts';

export interface Circumstances {
  filters: Pick<FilterLibrary, 'minifilters'>;
  restartManager: Pick<RestartManager, 'processesHolding'>;
  /** `26100.2314` */
  version: string;
}

/** Layer calls say "path not found" of what is below them. */
const LAYER_DLLS = ['vmcompute.dll', 'computestorage.dll'];
const INCOMPLETE =
  'a layer below it, or what an earlier try left, is half deleted: `cimlet plan` names damaged layers, and apply builds them anew';

/** More than these say no more. */
const MOST_NAMED = 10;
/** What Node makes of 0x20 and 0x5. */
const NODE_CODES = ['EBUSY', 'EPERM', 'EACCES'];

/**
 * The error with the build, the processes that hold the file and the file-system filters that are loaded in its hint, as
 * far as Windows tells; any other error as it is.
 */
export async function explain(
  error: unknown,
  { filters, restartManager, version }: Circumstances,
): Promise<unknown> {
  if (!(error instanceof CimletError)) return error;
  if (isWin32Error(error, Win32Error.PATH_NOT_FOUND) && LAYER_DLLS.includes(error.dll))
    return new CimletError(error.code, error.message, { hint: INCOMPLETE, cause: error });
  const refusal = refusalIn(error);
  if (refusal === undefined) return error;
  const holders = await known(async () => {
    if (refusal.files.length === 0) return [];
    const processes = await restartManager.processesHolding(refusal.files);
    return processes.map(({ name, processId }) => `${name} (process ${processId})`);
  });
  const loaded = await known(async () => (await filters.minifilters()).map(({ name }) => name));
  const hint = [
    error.hint,
    `this is Windows ${version}`,
    ...listed('held by', holders),
    ...listed('file-system filters loaded:', loaded),
  ];
  return new CimletError(error.code, error.message, {
    hint: hint.filter((part) => part !== undefined).join('; '),
    cause: error,
  });
}

/** What was refused, by the first cause that says so: a call, or what Node was to do with a file. */
function refusalIn(error: unknown): { files: string[] } | undefined {
  if (!(error instanceof Error)) return undefined;
  if (isWin32Error(error, Win32Error.ACCESS_DENIED, Win32Error.SHARING_VIOLATION)) return { files: [] };
  const { code = '', path } = error as NodeJS.ErrnoException;
  if (path !== undefined && NODE_CODES.includes(code)) return { files: [path] };
  return refusalIn(error.cause);
}

/** Nothing where Windows doesn't tell: the error is worth telling all the same. */
async function known(ask: () => Promise<string[]>): Promise<string[]> {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof CimletError) return [];
    throw error;
  }
}

function listed(what: string, names: readonly string[]): string[] {
  if (names.length === 0) return [];
  const rest = names.length - MOST_NAMED;
  const more = rest > 0 ? ` and ${rest} more` : '';
  return [`${what} ${names.slice(0, MOST_NAMED).join(', ')}${more}`];
}
