/** Goes on with files, and ends, as main.ts does, while calls don't return that Node would wait for. */

import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { setImmediate as turn } from 'node:timers/promises';
import { areEffectsHung, unlessHung } from '../../../src/hosts/windows/hung-effects.ts';
import { openWindowsApi } from '../../../src/native/windows/windows.ts';

await mkdir('C:\\doubles', { recursive: true });
await rm('C:\\doubles\\release', { force: true });
await writeFile('C:\\doubles\\faults.txt', 'LayerExists 0 hang 0\n');
const { vmcompute } = openWindowsApi();
const [asking = Promise.resolve(true)] = Array.from({ length: 5 }, () => vmcompute.layerExists('C:\\none'));
// As many as there are threads in the pool, or as may have one.
const hanging = async () => {
  const lines = (await readFile('C:\\doubles\\calls.jsonl', 'utf8')).split('\n');
  return lines.filter((line) => line.includes('"LayerExists"') && line.includes('"hangs"')).length;
};
while ((await hanging()) < 3) await turn();
const signal = AbortSignal.abort();
await unlessHung(asking, { signal }, 'ask', 0).catch((error: Error) => console.log(error.message));
process.exitCode = 7;
if (areEffectsHung()) process.exit();
