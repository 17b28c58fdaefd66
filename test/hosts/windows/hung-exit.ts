/** Ends, as main.ts does, while a call doesn't return that Node would wait for. */

import { mkdir, writeFile } from 'node:fs/promises';
import { areEffectsHung, unlessHung } from '../../../src/hosts/windows/hung-effects.ts';
import { openWindowsApi } from '../../../src/native/windows/windows.ts';

await mkdir('C:\\doubles', { recursive: true });
await writeFile('C:\\doubles\\faults.txt', 'LayerExists 1 hang 0\n');
const asking = openWindowsApi().vmcompute.layerExists('C:\\none');
const signal = AbortSignal.abort();
await unlessHung(asking, { signal }, 'ask', 0).catch((error: Error) => console.log(error.message));
process.exitCode = 7;
if (areEffectsHung()) process.exit();
