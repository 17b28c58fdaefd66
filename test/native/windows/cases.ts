/** Cases that run in a Windows process, and what a test makes of them. */

import { runWindowsProcess, type WindowsWorld } from '../../support/windows.ts';

export type Results = Record<string, { value?: unknown; error?: Record<string, unknown> }>;

/** Runs a script that ends with `printCases`. */
export async function runCases(
  world: WindowsWorld,
  script: string,
  names: readonly string[],
  env: Record<string, string> = {},
): Promise<Results> {
  const { code, stdout, stderr } = await runWindowsProcess(world, { script, args: names, env });
  if (code !== 0) throw new Error(`exit ${code}\n${stdout}\n${stderr}`);
  return JSON.parse(stdout) as Results;
}
