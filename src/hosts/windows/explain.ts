/** What helps with "access denied" (0x5), "in use" (0x20) and "path not found" (0x3), which on Windows often mask something else. */

import { win32 } from 'node:path';
import { CimletError } from '../../errors.ts';
import type { FilterLibrary } from '../../native/windows/fltlib.ts';
import { isWin32Error, type NativeError, nativeErrorIn } from '../../native/windows/native-error.ts';
import type { RestartManager } from '../../native/windows/rstrtmgr.ts';
import { Win32Error } from '../../native/windows/status.ts';
import { withoutNamespace } from './mount-paths.ts';
import { DISK } from './scratches.ts';

export interface Circumstances {
  filters: Pick<FilterLibrary, 'minifilters'>;
  restartManager: Pick<RestartManager, 'processesHolding'>;
  /** `26100.2314` */
  version: string;
}

/** Layer calls say "path not found" of what is below them. */
const LAYER_DLLS = ['vmcompute.dll', 'computestorage.dll'];
const CIM_DLLS = ['cimfs.dll', 'cimwriter.dll'];
const INCOMPLETE =
  'a layer below it, or what an earlier try left, is half deleted: `cimlet plan` names damaged layers, and apply builds them anew';

/** More than these say no more. */
const MOST_NAMED = 10;
/** One effect may be part of another, each of which explains what it throws. */
const explained = new WeakSet<Error>();
/** What Node makes of 0x20 and 0x5. */
const NODE_CODES = ['EBUSY', 'EPERM', 'EACCES'];

/**
 * The error with the build in its hint when a call of Windows failed, and, when that was refused, with the processes that hold
 * the file and the file-system filters that are loaded, as far as Windows tells; any other error as it is.
 */
export async function explain(
  error: unknown,
  { filters, restartManager, version }: Circumstances,
): Promise<unknown> {
  if (!(error instanceof CimletError) || isExplained(error)) return error;
  const failed = nativeErrorIn(error);
  const refused = refusedFiles(error, failed);
  if (failed === undefined && refused === undefined) return error;
  const build = `this is Windows ${version}`;
  const isLost = isWin32Error(failed, Win32Error.PATH_NOT_FOUND) && LAYER_DLLS.includes(failed.dll);
  const hint = [isLost ? INCOMPLETE : error.hint, build];
  if (refused !== undefined) {
    const holders = await known(async () => {
      if (refused.length === 0) return [];
      const processes = await restartManager.processesHolding(refused);
      return processes.map(({ name, processId }) => `${name} (process ${processId})`);
    });
    const loaded = await known(async () => (await filters.minifilters()).map(({ name }) => name));
    hint.push(...listed('held by', holders), ...listed('file-system filters loaded:', loaded));
  }
  const told = new CimletError(error.code, error.message, {
    hint: hint.filter((part) => part !== undefined).join('; '),
    cause: error,
  });
  explained.add(told);
  return told;
}

/** Whether it was, or what it was made of: a failed clean-up is told with what failed before. */
function isExplained(error: Error): boolean {
  return explained.has(error) || (error.cause instanceof Error && isExplained(error.cause));
}

/** The files that a call, or Node, was refused; undefined when something else went wrong. */
function refusedFiles(error: Error, failed: NativeError | undefined): string[] | undefined {
  if (failed !== undefined)
    return isWin32Error(failed, Win32Error.ACCESS_DENIED, Win32Error.SHARING_VIOLATION)
      ? filesOf(failed)
      : undefined;
  const { code = '', path } = error as NodeJS.ErrnoException;
  if (path !== undefined && NODE_CODES.includes(code)) return [path];
  return error.cause instanceof Error ? refusedFiles(error.cause, undefined) : undefined;
}

/** What a call was about: of layer calls the scratch's disk in the folder, of CIMs the file in it. */
function filesOf({ dll, args }: NativeError): string[] {
  const texts = args.filter((arg) => arg.startsWith('"')).map((arg) => JSON.parse(arg) as string);
  const paths = texts.map(withoutNamespace).filter((text) => /^[a-z]:\\/i.test(text));
  if (LAYER_DLLS.includes(dll)) return paths.map((folder) => win32.join(folder, DISK));
  if (!CIM_DLLS.includes(dll)) return paths;
  const image = texts.find((text) => text.endsWith('.cim'));
  return paths.map((path) =>
    image === undefined || path.endsWith('.bcim') ? path : win32.join(path, image),
  );
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
