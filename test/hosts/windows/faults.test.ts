/** What the Windows host does when a call fails: says which, gives back what it took, and succeeds when asked again. */

import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type NativeCall,
  openWindowsWorld,
  runWindowsProcess,
  type WindowsWorld,
} from '../../support/windows.ts';
import { canRunWindows } from '../../support/windows-tools.ts';
import type { Outcome } from './faults.ts';

describe.runIf(canRunWindows())('the Windows host, each of whose calls fails once', () => {
  let world: WindowsWorld;
  let calls: NativeCall[];
  let result: { outcomes: Outcome[]; rest: string[] };

  beforeAll(async () => {
    world = await openWindowsWorld();
    const script = join(import.meta.dirname, 'faults.ts');
    const { stdout, stderr } = await runWindowsProcess(world, { script });
    expect(stderr).toBe('');
    result = JSON.parse(stdout) as typeof result;
    calls = await world.calls();
  }, 240_000);
  afterAll(() => world?.close());

  it('names the call that failed, keeps nothing, and succeeds when asked again', () => {
    expect(result.outcomes.length).toBeGreaterThan(20);
    for (const outcome of result.outcomes) {
      expect(outcome).toMatchObject({ code: 'native', again: 'succeeded', leftovers: [] });
      expect(outcome.error).toContain(outcome.call);
      // What can't be dismounted stays.
      if (outcome.doing !== 'dismount') expect({ ...outcome }).toMatchObject({ volumes: [] });
    }
    expect(result.rest).toEqual([]);
  });

  it('ends what is shown at a path before the volume that it shows', () => {
    const order = calls.filter(({ call }) => /^Bf|DismountImage/.test(call));
    const shown = order.filter(({ call, result: code }) => call === 'BfSetupFilter' && code === '0x00000000');
    expect(shown.length).toBeGreaterThan(4);
    for (const call of shown) expect(order[order.indexOf(call) + 1]?.call).toBe('BfRemoveMapping');
  });

  it('closes every image and stream it opened', () => {
    const count = (...names: string[]) =>
      calls.filter(({ call, result: code }) => names.includes(call) && code === '0x00000000').length;
    expect(count('CimCloseImage')).toBe(count('CimCreateImage', 'CimCreateImage2'));
  });
});
