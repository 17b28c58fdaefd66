/** Asks a person before something is done. */

import { createInterface } from 'node:readline/promises';
import type { Terminal } from './terminal.ts';

/**
 * True for `y` and `yes`; anything else, an end of input and Ctrl-C are a no. `onStandardError`: ask there, because
 * standard output carries data.
 */
export async function confirm(
  terminal: Terminal,
  question: string,
  onStandardError: boolean,
): Promise<boolean> {
  const controller = new AbortController();
  const output = onStandardError ? terminal.stderr : terminal.stdout;
  const lines = createInterface({ input: terminal.stdin, output, terminal: true });
  const refuse = () => controller.abort();
  lines.once('SIGINT', refuse).once('close', refuse);
  try {
    const answer = await lines.question(`${question} [y/N] `, { signal: controller.signal });
    return /^y(es)?$/i.test(answer.trim());
  } catch (error) {
    if (!controller.signal.aborted) throw error;
    output.write('\n');
    return false;
  } finally {
    lines.close();
  }
}
