/**
 * Every call that an effect of the Windows host makes failing once, and being its last, in one Windows process. What calls it
 * makes is learnt from a run without faults; of those that it makes for every file, the first fails, and the last one is the
 * last. A call that is the last doesn't return: what was done until then is what a killed process leaves, and another host, which
 * knows nothing of it, goes on. (killed.test.ts kills real processes.)
 */

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { setImmediate as turn } from 'node:timers/promises';
import type { Host } from '../../../src/hosts/host.ts';
import { openWindowsApi } from '../../../src/native/windows/windows.ts';
import { context, look } from '../../conformance/host.ts';

export interface Met {
  effect: string;
  call: string;
  action: 'fail' | 'hang-after';
}

/** An effect in a state that `prepare` makes; both may be done again. */
export interface Effect {
  name: string;
  prepare(host: Host): Promise<unknown>;
  run(host: Host): Promise<unknown>;
  /** Calls during which files are open, which the end of a process would close: they only fail. */
  onlyFailing?: RegExp;
  /** It takes away, so that what fails leaves more than there should be. */
  isUndoing?: boolean;
  /** The calls that no other effect met in the same state. */
  only?: RegExp | undefined;
}

const FAULTS = 'C:\\doubles\\faults.txt';
const LOG = 'C:\\doubles\\calls.jsonl';
/** They look, or can't fail. */
const HARMLESS =
  /^(CimCloseImage|GetLayerMountPath|NameToGuid|BfGetMappings)$|^(Find|GetVolume)|^Hcs.*(Operation|ComputeSystem)/;

/** Throws at the first call that leaves something, or after which the effect can't be done. Returns what was met. */
export async function meetEachCall(
  open: () => Host,
  { name, prepare, run, isUndoing, only, onlyFailing }: Effect,
): Promise<Met[]> {
  const { kernel32 } = openWindowsApi();
  const met: Met[] = [];
  let host = open();
  await prepare(host);
  for (const [call, times] of await callsOf(() => run(host))) {
    if (only?.test(call) === false) continue;
    for (const action of ['fail', 'hang-after'] as const) {
      if (action === 'hang-after' && onlyFailing?.test(call) === true) continue;
      const what = { effect: name, call, action };
      await prepare(host);
      const volumes = await kernel32.findVolumes();
      const logged = (await readFile(LOG)).length;
      await writeFile(FAULTS, `${call} ${action === 'fail' ? 1 : times} ${action} 80004005\n`);
      if (action === 'fail') {
        await assert.rejects(run(host), (error: Error) => error.message.includes(call), JSON.stringify(what));
        const more = (await kernel32.findVolumes()).filter((volume) => !volumes.includes(volume));
        if (isUndoing !== true) assert.deepEqual(more, [], JSON.stringify(what));
      } else {
        await stuck(run(host), logged);
        host = open();
        await host.cleanLeftovers(context);
      }
      assert.deepEqual((await look(host)).leftovers, [], JSON.stringify(what));
      await run(host);
      met.push(what);
    }
  }
  return met;
}

/** What an effect calls, each with the number of times. */
async function callsOf(run: () => Promise<unknown>): Promise<Map<string, number>> {
  const before = existsSync(LOG) ? (await readFile(LOG)).length : 0;
  await run();
  const counts = new Map<string, number>();
  for (const line of (await readFile(LOG)).subarray(before).toString().split('\n')) {
    if (line === '') continue;
    const { call, result } = JSON.parse(line) as { call: string; result?: string };
    if (!HARMLESS.test(call) && result === '0x00000000') counts.set(call, (counts.get(call) ?? 0) + 1);
  }
  return counts;
}

/** Waits for a call that has done its work and doesn't return; throws what the effect ended with before. */
async function stuck(run: Promise<unknown>, logged: number): Promise<void> {
  const ended = run.then(() => {
    throw new Error('it ended without the call');
  });
  const hangs = async () => {
    while (!(await readFile(LOG)).subarray(logged).includes('hangs after')) await turn();
  };
  await Promise.race([ended, hangs()]);
  ended.catch(() => undefined);
}
