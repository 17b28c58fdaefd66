/** Steps of child.ts, and what they give. */

import { join } from 'node:path';
import type { WindowsProcess, WindowsWorld } from '../../support/windows.ts';

/** DLL, function, arguments: handles by names of the test's choice, bytes in hex, GUIDs and images as text. */
export type Step = readonly [dll: string, call: string, ...args: unknown[]];

export function startSteps(world: WindowsWorld, steps: readonly Step[]): Promise<WindowsProcess> {
  return world.start({ script: join(import.meta.dirname, 'child.ts'), input: JSON.stringify(steps) });
}

/** For each step its result as `0x%08x`, then what it gave out. */
export async function takeSteps(world: WindowsWorld, steps: readonly Step[]): Promise<unknown[][]> {
  const { code, stdout, stderr } = await (await startSteps(world, steps)).result();
  if (code !== 0) throw new Error(`exit ${code}\n${stdout}\n${stderr}`);
  return JSON.parse(stdout) as unknown[][];
}
