/** The Windows host killed inside of its calls, and started again. */

import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Fault, openWindowsWorld, runWindowsProcess, type WindowsWorld } from '../../support/windows.ts';
import { canRunWindows } from '../../support/windows-tools.ts';

const SCRIPT = join(import.meta.dirname, 'lifecycle.ts');

/** In the order of a store's life, so that each start finishes what the kill before left and dies in what comes next. */
const KILLS: Fault[] = [
  { call: 'CimWriteStream', action: 'kill' },
  { call: 'CimMountImage', action: 'kill-after' },
  { call: 'CimCommitImage', nth: 2, action: 'kill-after' },
  { call: 'CimMergeMountImage', action: 'kill-after' },
  { call: 'BfSetupFilter', action: 'kill' },
  { call: 'BfSetupFilter', action: 'kill-after' },
  { call: 'BfRemoveMapping', action: 'kill-after' },
];

describe.runIf(canRunWindows())('the Windows host', () => {
  let world: WindowsWorld;
  beforeAll(async () => {
    world = await openWindowsWorld();
  });
  afterAll(() => world?.close());

  it('comes through kills in the middle of its calls and leaves nothing behind', async () => {
    for (const kill of KILLS) {
      await world.forgetCalls();
      await world.plan([kill]);
      const { stdout, stderr } = await runWindowsProcess(world, { script: SCRIPT });
      expect({ kill, stdout, stderr }).toEqual({ kill, stdout: '', stderr: '' });
      expect((await world.calls()).at(-1)).toMatchObject({ call: kill.call, fault: expect.anything() });
    }
    await world.forgetCalls();
    await world.plan([]);
    const { stdout, stderr } = await runWindowsProcess(world, { script: SCRIPT });
    expect({ stdout, stderr }).toEqual({ stdout: 'done\n', stderr: '' });
    const devices = await readdir(join(world.drive, '../dosdevices'));
    expect(devices.filter((name) => name.startsWith('volume{'))).toEqual([]);
    const store = await readdir(join(world.drive, 'store'), { recursive: true });
    expect(store.sort()).toEqual(['cim-layers', 'mounts', 'snapshots']);
    const done = (await world.calls()).filter(({ result }) => result === '0x00000000');
    const count = (...names: string[]) => done.filter(({ call }) => names.includes(call)).length;
    expect(count('CimCloseImage')).toBe(count('CimCreateImage', 'CimCreateImage2'));
    // What is shown at a path ends before the volume that it shows.
    const shown = done.findIndex(({ call }) => call === 'BfSetupFilter');
    expect(done.slice(shown).flatMap(({ call }) => call.match(/^BfRem.*|.*DismountImage$/) ?? [])).toEqual([
      'BfRemoveMapping',
      'CimDismountImage',
    ]);
  }, 300_000);
});
