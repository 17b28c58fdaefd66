/** What stops work in good order. The signals themselves are sent to real processes in run-agent's and apply's tests. */

import { afterEach, expect, it } from 'vitest';
import { type Interruption, listenForInterruption } from '../../src/cli/signals.ts';

let interruption: Interruption | undefined;
afterEach(() => interruption?.stop());

it.each([
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGBREAK', 149],
] as const)('%s asks running work to stop, and tells shells so', (name, code) => {
  const said: string[] = [];
  interruption = listenForInterruption((message) => said.push(message));
  process.emit(name, name);
  expect([interruption.signal.aborted, interruption.exitCode]).toEqual([true, code]);
  expect(said).toEqual([expect.stringContaining(name)]);
});
