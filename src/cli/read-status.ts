/** Reads the state database and the host, for the commands that only look. */

import { openState, type State } from '../state/state.ts';
import type { CliContext } from './context.ts';
import type { GlobalOptions } from './options.ts';
import { listenForInterruption } from './signals.ts';
import { deriveStatus, type Status } from './status.ts';

/** Events of one resource, latest first. */
export type ReadEvents = State['events'];

/** Observes the host, reads what was recorded, and hands both over. Writes nothing in the root. */
export async function readStatus<T>(
  { terminal, services }: CliContext,
  options: GlobalOptions,
  use: (status: Status, events: ReadEvents) => T,
): Promise<T> {
  const interruption = listenForInterruption((message) => terminal.printError(message));
  try {
    const host = services.openHost(options.host, options.root);
    const observed = await host.observe({ signal: interruption.signal });
    const state = openState(options.root, { readOnly: true });
    try {
      return use(deriveStatus(state.records(), observed), state.events);
    } finally {
      state.close();
    }
  } finally {
    interruption.stop();
  }
}
