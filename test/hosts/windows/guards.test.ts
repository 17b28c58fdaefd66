/** What Windows does in the field, and what the Windows host does about it: the table in docs/windows.md. */

import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type NativeCall,
  openWindowsWorld,
  runWindowsProcess,
  type WindowsWorld,
} from '../../support/windows.ts';
import { canRunWindows } from '../../support/windows-tools.ts';

describe.runIf(canRunWindows())('guards of the Windows host', () => {
  let world: WindowsWorld;
  let calls: NativeCall[];

  beforeAll(async () => {
    world = await openWindowsWorld();
    const script = join(import.meta.dirname, 'guards.ts');
    const { stdout, stderr } = await runWindowsProcess(world, { script });
    expect({ stdout, stderr }).toEqual({ stdout: 'done\n', stderr: '' });
    calls = await world.calls();
  }, 240_000);
  afterAll(() => world?.close());

  it('take away what is attached before a layer is destroyed once more', () => {
    const layerCalls = calls.filter(({ dll }) => dll === 'vmcompute');
    const first = layerCalls.findIndex(
      ({ call, result }) => call === 'DestroyLayer' && result === '0x80070005',
    );
    expect(layerCalls.slice(first, first + 4).map(({ call }) => call)).toEqual([
      'DestroyLayer',
      'UnprepareLayer',
      'DeactivateLayer',
      'DestroyLayer',
    ]);
  });

  it('let the process end while a call does not return', async () => {
    const script = join(import.meta.dirname, 'hung-exit.ts');
    const { code, stdout } = await runWindowsProcess(world, { script });
    expect({ code, stdout }).toEqual({
      code: 7,
      stdout: expect.stringContaining('Windows has not answered'),
    });
  });

  it('keep layer calls few at a time, however many threads there are for them', async () => {
    const script = join(import.meta.dirname, 'few-calls.ts');
    const { stdout } = await runWindowsProcess(world, { script, env: { UV_THREADPOOL_SIZE: '16' } });
    expect(stdout).toBe('done\n');
    const answered = (await world.calls()).filter(({ call, result }) => call === 'LayerExists' && result);
    expect([answered.length, Math.max(...answered.map(({ concurrent }) => concurrent))]).toEqual([16, 4]);
  });
});
