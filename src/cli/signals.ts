/** Ctrl-C, Ctrl-Break and SIGTERM while work is under way: the first asks it to stop, the second doesn't ask. */

import type { CliContext } from './context.ts';

export interface Interruption {
  readonly signal: AbortSignal;
  /** 128 + the number of the signal that came, as shells count; undefined while none came. */
  readonly exitCode: number | undefined;
  stop(): void;
}

/** SIGBREAK is Ctrl-Break of Windows, which reaches process groups of their own, where Ctrl-C doesn't. */
const NUMBERS = { SIGINT: 2, SIGTERM: 15, SIGBREAK: 21 } as const;

/** Listens until `stop`, to what the service manager says as well. `announce` is called once, at the first of all. */
export function listenForInterruption(
  announce: (message: string) => void,
  service?: AbortSignal,
): Interruption {
  const controller = new AbortController();
  let exitCode: number | undefined;
  const onServiceStop = () => {
    if (controller.signal.aborted) return;
    announce('The service manager: finishing what is running, then stopping.');
    controller.abort();
  };
  service?.addEventListener('abort', onServiceStop, { once: true });
  const onSignal = (name: NodeJS.Signals) => {
    const code = 128 + NUMBERS[name as keyof typeof NUMBERS];
    if (exitCode !== undefined) process.exit(code);
    exitCode = code;
    if (controller.signal.aborted) return;
    announce(`${name}: finishing what is running, then stopping; once more quits at once.`);
    controller.abort();
  };
  const names = Object.keys(NUMBERS) as (keyof typeof NUMBERS)[];
  for (const name of names) process.on(name, onSignal);
  return {
    signal: controller.signal,
    get exitCode() {
      return exitCode;
    },
    stop() {
      service?.removeEventListener('abort', onServiceStop);
      for (const name of names) process.off(name, onSignal);
    },
  };
}

/** Runs what only looks: the first signal cancels it, and decides the exit code. */
export async function interruptible<T>(
  context: CliContext,
  run: (signal: AbortSignal) => Promise<T>,
  announce = (message: string) => context.terminal.printError(message),
): Promise<T> {
  const interruption = listenForInterruption(announce);
  try {
    return await run(interruption.signal);
  } finally {
    interruption.stop();
    context.exitCode = interruption.exitCode ?? context.exitCode;
  }
}
