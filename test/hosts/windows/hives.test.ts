/** Registry hives of CIM layers on Windows: merged by its offreg.dll where it is, by cimlet's own code where it isn't. */

import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { mergeHives } from '../../../src/hive/merge.ts';
import { readHive } from '../../../src/hive/reader.ts';
import { writeHive } from '../../../src/hive/writer.ts';
import { openWindowsWorld, runWindowsProcess, type WindowsWorld } from '../../support/windows.ts';
import { canRunWindows } from '../../support/windows-tools.ts';
import { type HiveOutcome, hiveOf } from './hives.ts';

const script = join(import.meta.dirname, 'hives.ts');
const [below, above] = [hiveOf('below'), hiveOf('above')];

describe.runIf(canRunWindows())('hives of layers on Windows', () => {
  const worlds: WindowsWorld[] = [];
  afterAll(() => Promise.all(worlds.map((world) => world.close())));

  async function buildIn(doubles?: readonly string[]) {
    const world = await openWindowsWorld(doubles === undefined ? {} : { doubles });
    worlds.push(world);
    const { stdout, stderr } = await runWindowsProcess(world, { script });
    expect(stderr).toBe('');
    return { calls: await world.calls(), outcomes: JSON.parse(stdout) as Record<string, HiveOutcome> };
  }

  it('are merged by offreg.dll, base first, as this Windows saves them', async () => {
    const { calls, outcomes } = await buildIn();
    const part = (bytes: Buffer) => [Buffer.from(`\n${bytes.length}\n`), bytes];
    const merged = Buffer.concat([Buffer.from('regfmrgd'), ...part(below), ...part(above)]).toString('hex');
    const outcome = { merged, warnings: [], leftovers: 0, exported: ['SYSTEM_DELTA'] };
    expect(outcomes).toEqual({ ForkedCIM: outcome, BlockCIM: outcome });
    const hives = calls.filter(({ dll }) => dll === 'offreg');
    const order = ['OROpenHive', 'OROpenHive', 'ORMergeHives', 'ORSaveHive', ...Array(3).fill('ORCloseHive')];
    expect(hives.map(({ call }) => call)).toEqual([...order, ...order]);
    expect(hives.every(({ result }) => result === '0x00000000')).toBe(true);
    expect(hives[3]?.args).toMatchObject({ major: 10, minor: 0 });
  });

  it("are merged by cimlet where Windows has no offreg.dll, which the layer's warnings and doctor say", async () => {
    const { outcomes } = await buildIn(['cimfs', 'bindfltapi']);
    const merged = writeHive(mergeHives(readHive(below, 'below'), readHive(above, 'above'))).toString('hex');
    for (const outcome of Object.values(outcomes))
      expect(outcome).toEqual({
        merged,
        warnings: [
          'registry hive Hives/SYSTEM_DELTA was merged by cimlet itself, since this Windows has no offreg.dll',
        ],
        reason: expect.stringMatching(/^cimlet merges registry hives itself: offreg\.dll is not available/),
        leftovers: 0,
        exported: ['SYSTEM_DELTA'],
      });
    expect(Object.keys(outcomes)).toHaveLength(2);
  });

  it('that can not be merged name the delta and the call, and leave nothing', async () => {
    const world = await openWindowsWorld();
    worlds.push(world);
    await world.plan([{ call: 'ORMergeHives', action: 'fail', code: 0x3f1 }]);
    const { stderr, code } = await runWindowsProcess(world, { script });
    expect(code).not.toBe(0);
    expect(stderr).toMatch(/Hives\/SYSTEM_DELTA.*ORMergeHives in offreg\.dll/s);
    const hives = (await world.calls()).filter(({ dll }) => dll === 'offreg').map(({ call }) => call);
    expect(hives).toEqual(['OROpenHive', 'OROpenHive', 'ORMergeHives', 'ORCloseHive', 'ORCloseHive']);
  });
});
