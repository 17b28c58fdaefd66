/** Many layer calls at once, each of which hangs until four have begun. Prints `done` in the end. */

import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { setImmediate as turn } from 'node:timers/promises';
import { bearableLayerCalls } from '../../../src/hosts/windows/layer-calls.ts';
import { openWindowsApi } from '../../../src/native/windows/windows.ts';

const LOG = 'C:\\doubles\\calls.jsonl';
await mkdir('C:\\doubles', { recursive: true });
for (const left of [LOG, 'C:\\doubles\\release']) await rm(left, { force: true });
await writeFile('C:\\doubles\\faults.txt', 'LayerExists 0 hang 0\n');
const { vmcompute } = bearableLayerCalls(openWindowsApi());
const asking = Promise.all(Array.from({ length: 16 }, () => vmcompute.layerExists('C:\\none')));
while ((await hanging()) < 4) await turn();
await writeFile('C:\\doubles\\release', '');
await asking;
console.log('done');

async function hanging(): Promise<number> {
  const lines = await readFile(LOG, 'utf8').catch(() => '');
  return lines.split('"hangs"').length - 1;
}
