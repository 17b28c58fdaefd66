/** Shows a running plan: a live tree on a terminal, plain lines anywhere else. Owns log-update. */

import { createLogUpdate } from 'log-update';
import type { ExecutionEvent, PlannedAction } from '../reconciler/types.ts';
import { createProgress, liveLines, plainLine, recordEvent } from './progress-model.ts';
import type { Terminal } from './terminal.ts';

export interface ProgressView {
  handle(event: ExecutionEvent): void;
  /** Prints a line that stays, above the live part. */
  say(line: string): void;
  /** Draws the last state and gives the terminal back. */
  close(): void;
}

const FRAME_MS = 100;

/** `toStandardError` is for `-o json` and `-o yaml`: standard output is left to the data. */
export function openProgress(
  terminal: Terminal,
  actions: readonly PlannedAction[],
  options: { toStandardError: boolean },
): ProgressView {
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

function liveView(terminal: Terminal, actions: readonly PlannedAction[]): ProgressView {
  const model = createProgress(actions);
  const update = createLogUpdate(terminal.stdout as NodeJS.WriteStream);
  const draw = () => {
    const { width, rows, paint } = terminal;
    update(liveLines(model, { width, rows, paint }, performance.now()).join('\n'));
  };
  const say = (line: string) => {
    update.clear();
    terminal.print(line);
    draw();
  };
  const steps = new Map<string, string>();
  draw();
  const timer = setInterval(draw, FRAME_MS);
  return {
    handle(event) {
      recordEvent(model, event, performance.now());
      const line = event.type === 'action.warned' ? plainLine(event, steps) : undefined;
      if (line !== undefined) say(line);
    },
    say,
    close() {
      clearInterval(timer);
      draw();
      update.done();
    },
  };
}
