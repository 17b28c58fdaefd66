/** A machine that CimFS takes down again and again is left alone. */

import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { CimfsGuard } from '../../../src/hosts/windows/cimfs-guard.ts';

const HOUR = 3_600_000;
const FIRST_BOOT = Date.UTC(2026, 0, 2);
let root: string;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'cimlet-guard-'));
});
afterEach(() => rm(root, { recursive: true, force: true }));

const guardAfter = (boot: number) => new CimfsGuard(join(root, 'cimfs-work.json'), boot);

/** CimFS begins to work, and nothing is heard of the machine until it boots again. */
async function crash(boot: number): Promise<void> {
  await new Promise<void>((goesDown) => {
    void guardAfter(boot).during(() => {
      goesDown();
      return new Promise(() => undefined);
    });
  });
}

it('stops the use of CimFS after three crashes within a day, and says how to go on', async () => {
  for (const hours of [0, 1, 2]) {
    expect(await guardAfter(FIRST_BOOT + hours * HOUR).refusal()).toBeUndefined();
    await crash(FIRST_BOOT + hours * HOUR);
  }
  const refusal = await guardAfter(FIRST_BOOT + 3 * HOUR).refusal();
  expect(refusal).toMatchObject({ available: false, reason: expect.stringContaining('3 times') });
  await rm(/delete (.*)$/.exec(refusal?.hint ?? '')?.[1] ?? '');
  expect(await guardAfter(FIRST_BOOT + 3 * HOUR).refusal()).toBeUndefined();
});

it('takes work that was finished between crashes for nothing', async () => {
  for (const hours of [0, 1, 2]) {
    await guardAfter(FIRST_BOOT + hours * HOUR).during(async () => undefined);
    await crash(FIRST_BOOT + hours * HOUR);
  }
  expect(await guardAfter(FIRST_BOOT + 3 * HOUR).refusal()).toBeDefined();
});

it('forgets crashes after a day', async () => {
  for (const hours of [0, 1, 23]) await crash(FIRST_BOOT + hours * HOUR);
  expect(await guardAfter(FIRST_BOOT + 23.9 * HOUR).refusal()).toBeDefined();
  expect(await guardAfter(FIRST_BOOT + 24.1 * HOUR).refusal()).toBeUndefined();
});

it('counts no agent that was killed while the machine stayed up, nor a restart afterwards', async () => {
  for (let start = 0; start < 4; start++) {
    await crash(FIRST_BOOT + start);
    await guardAfter(FIRST_BOOT + start).settle();
  }
  expect(await guardAfter(FIRST_BOOT + HOUR).refusal()).toBeUndefined();
  expect(await readdir(root)).toEqual([]);
});

it('begins nothing that it cannot note, but what ends work goes on, and is told of', async () => {
  const said: string[] = [];
  const file = join(root, 'file', 'cimfs-work.json');
  await writeFile(join(root, 'file'), '');
  const guard = new CimfsGuard(file, FIRST_BOOT, (message) => said.push(message));
  let begun = false;
  await expect(guard.during(async () => (begun = true))).rejects.toThrow();
  expect(begun).toBe(false);
  expect(await guard.duringEnd(async () => 'ended')).toBe('ended');
  expect(said.join()).toContain('note when CimFS is at work');
});

it('notes work that overlaps once, and leaves nothing behind', async () => {
  const guard = guardAfter(FIRST_BOOT);
  await Promise.all([1, 2, 3].map(() => guard.during(async () => undefined)));
  expect(await readdir(root)).toEqual([]);
});
