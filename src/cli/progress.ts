/** Shows a running plan: a live tree on a terminal, plain lines anywhere else. */

import type { ExecutionEvent, PlannedAction } from '../reconciler/types.ts';
import { openLiveArea } from './live-area.ts';
import { liveLines } from './progress-lines.ts';
import { createProgress, plainLine, recordEvent } from './progress-model.ts';
import type { Terminal } from './terminal.ts';

export interface ProgressView {
  handle(event: ExecutionEvent): void;
  /** Prints a line that stays, above the live part. */
  say(line: string): void;
  /** Draws the last state and gives the terminal back. */
  close(): void;
}

/** `toStandardError` is for `-o json` and `-o yaml`: standard output is left to the data. */
export async function openProgress(
  terminal: Terminal,
  actions: readonly PlannedAction[],
  options: { toStandardError: boolean },
): Promise<ProgressView> {
  if (options.toStandardError) return plainView((line) => terminal.printError(line));
  return terminal.live ? liveView(terminal, actions) : plainView((line) => terminal.print(line));
}

function plainView(print: (line: string) => void): ProgressView {
  const steps = new Map<string, string>();
  return {
    handle(event) {
      const line = plainLine(event, steps);
      if (line !== undefined) print(line);
    },
    say: print,
    close: () => undefined,
  };
}

async function liveView(terminal: Terminal, actions: readonly PlannedAction[]): Promise<ProgressView> {
  const model = createProgress(actions);
  const area = await openLiveArea(terminal, () => {
    const { width, rows, paint } = terminal;
    return liveLines(model, { width, rows, paint }, performance.now());
  });
  const say = (line: string) => area.aside(() => terminal.print(line));
  const steps = new Map<string, string>();
  return {
    handle(event) {
      recordEvent(model, event, performance.now());
      const line = event.type === 'action.warned' ? plainLine(event, steps) : undefined;
      if (line !== undefined) say(line);
    },
    say,
    close: area.close,
  };
}
