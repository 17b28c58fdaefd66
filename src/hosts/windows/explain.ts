/** What helps with "access denied" (0x5) and "in use" (0x20), which on Windows often mask something else. */

import { CimletError } from '../../errors.ts';
import type { FilterLibrary } from '../../native/windows/fltlib.ts';
import { isWin32Error } from '../../native/windows/native-error.ts';
import { Win32Error } from '../../native/windows/status.ts';

export interface Circumstances {
  filters: Pick<FilterLibrary, 'minifilters'>;
  /** `26100.2314` */
  version: string;
}

/** The error with the build and the file-system filters that are loaded in its hint; any other error as it is. */
export async function explain(error: unknown, { filters, version }: Circumstances): Promise<unknown> {
  if (!(error instanceof CimletError) || !isDenial(error)) return error;
  const hint = [error.hint, `this is Windows ${version}`, await describeFilters(filters)];
  const { code, message } = error;
  return new CimletError(code, message, {
    hint: hint.filter((part) => part !== undefined).join('; '),
    cause: error,
  });
}

function isDenial(error: unknown): boolean {
  if (isWin32Error(error, Win32Error.ACCESS_DENIED, Win32Error.SHARING_VIOLATION)) return true;
  return error instanceof Error && error.cause !== undefined && isDenial(error.cause);
}

/** Where they can't be listed, the error is worth telling all the same. */
async function describeFilters(filters: Circumstances['filters']): Promise<string | undefined> {
  try {
    const names = (await filters.minifilters()).map(({ name }) => name);
    return names.length === 0 ? undefined : `file-system filters loaded: ${names.join(', ')}`;
  } catch (error) {
    if (error instanceof CimletError) return undefined;
    throw error;
  }
}
