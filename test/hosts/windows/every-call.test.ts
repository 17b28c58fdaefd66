/** Each call of the main effects failing, and each being the last before a process dies; of snapshots: snapshot-calls.test.ts. */

import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openWindowsWorld, runWindowsProcess, type WindowsWorld } from '../../support/windows.ts';
import { canRunWindows } from '../../support/windows-tools.ts';
import type { Met } from './each-call.ts';

/** A thread for every call that doesn't return. */
const ENVIRONMENT = { UV_THREADPOOL_SIZE: '256' };

describe.runIf(canRunWindows())('the Windows host', () => {
  let world: WindowsWorld;
  beforeAll(async () => {
    world = await openWindowsWorld();
  });
  afterAll(() => world?.close());

  it('says which call failed, leaves nothing of it, and does all of it the next time; also after dying in one', async () => {
    const script = join(import.meta.dirname, 'every-call.ts');
    const { stdout, stderr } = await runWindowsProcess(world, { script, env: ENVIRONMENT });
    expect(stderr).toBe('');
    const { met, rest } = JSON.parse(stdout) as { met: Met[]; rest: string[] };
    const calls = new Set(met.map(({ effect, call }) => `${effect}: ${call}`));
    expect(calls.size).toBeGreaterThan(30);
    for (const call of [
      'unpack ForkedCIM: CimDeletePath',
      'unpack BlockCIM: CimTombstoneFile',
      'unpack sealed BlockCIM: CimSealImage',
      'unpack sealed BlockCIM: CimGetVerificationInformation',
      'merge BlockCIM: CimAddFsToMergedImage2',
      'mount sealed BlockCIM: CimMergeMountVerifiedImage',
      'dismount BlockCIM: BfRemoveMapping',
    ])
      expect(calls).toContain(call);
    // An image is closed after its streams, but for those that could not be.
    const refused = (await world.calls()).filter(({ result = '' }) => Number(result) !== 0);
    const timesRefused = (name: string) => refused.filter(({ call }) => call === name).length;
    expect(timesRefused('CimCloseImage')).toBeLessThanOrEqual(timesRefused('CimCloseStream'));
    expect(rest).toEqual(['cim-layers', 'mounts', 'snapshots']);
    const devices = await readdir(join(world.drive, '../dosdevices'));
    expect(devices.filter((name) => name.startsWith('volume{'))).toEqual([]);
  }, 600_000);
});
