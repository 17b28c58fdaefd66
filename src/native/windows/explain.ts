/** What else is known when Windows refuses something without saying who is in the way. */

import { CimletError } from '../../errors.ts';
import { buildText, windowsBuild } from './capabilities.ts';
import { NativeError } from './native-error.ts';
import type { WindowsApi } from './windows.ts';

/** More than these say no more. */
const MOST_NAMED = 10;

/**
 * An error that says access denied or in use, with the build, the filter drivers that are loaded and the processes that
 * hold any of `files` in its hint, as far as this process may know them; any other error as it is. "In use" from the
 * layer calls is often a filter's doing, or a build's that an update has changed.
 */
export async function explainRefusal(
  api: WindowsApi,
  error: unknown,
  files: readonly string[] = [],
): Promise<unknown> {
  if (!(error instanceof NativeError) || !['access-denied', 'busy'].includes(error.code)) return error;
  const [filters, holders] = await Promise.all([
    known(async () => (await api.filters.minifilters()).map(({ name, altitude }) => `${name} (${altitude})`)),
    known(async () => {
      const processes = files.length === 0 ? [] : await api.restartManager.processesHolding(files);
      return processes.map(({ name, processId }) => `${name} (process ${processId})`);
    }),
  ]);
  const facts = [`Windows build ${buildText(windowsBuild(api))}`];
  if (holders.length > 0) facts.push(`held by ${listed(holders)}`);
  if (filters.length > 0) facts.push(`filter drivers: ${listed(filters)}`);
  return error.withHint(facts.join('; '));
}

/** Nothing where Windows doesn't tell: the error that is being explained matters more than that. */
async function known(ask: () => Promise<string[]>): Promise<string[]> {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof CimletError) return [];
    throw error;
  }
}

function listed(names: readonly string[]): string {
  const rest = names.length - MOST_NAMED;
  return rest > 0 ? `${names.slice(0, MOST_NAMED).join(', ')} and ${rest} more` : names.join(', ');
}
