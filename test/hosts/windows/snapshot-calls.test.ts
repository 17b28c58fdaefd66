/** Snapshots by key of the Windows host, with each of its calls failing once, and being the last of a process. */

import { join } from 'node:path';
import { expect, it } from 'vitest';
import { openWindowsWorld, runWindowsProcess } from '../../support/windows.ts';
import { canRunWindows } from '../../support/windows-tools.ts';
import type { Met } from './each-call.ts';

it.runIf(canRunWindows())(
  'a snapshot is whole or not there, keeps what was written, and nothing stays attached, whichever call fails or is the last',
  async () => {
    const world = await openWindowsWorld();
    try {
      const script = join(import.meta.dirname, 'snapshot-calls.ts');
      // A thread for every call that doesn't return.
      const env = { UV_THREADPOOL_SIZE: '256' };
      const { stdout, stderr } = await runWindowsProcess(world, { script, env });
      expect(stderr).toBe('');
      const { met, left } = JSON.parse(stdout) as { met: Met[]; left: unknown[][] };
      expect(left).toEqual([[], [], [], []]);
      const calls = (effect: string) =>
        met.filter((what) => what.effect === effect && what.action === 'fail').map(({ call }) => call);
      expect(calls('prepare ForkedCIM')).toEqual([
        'CreateVirtualDisk',
        'HcsFormatWritableLayerVhd',
        'ExpandSandboxSize',
        'OpenVirtualDisk',
        'AttachVirtualDisk',
        'DeviceIoControl',
      ]);
      expect(calls('export ForkedCIM')).toEqual([
        'CimMountImage',
        'ActivateLayer',
        'HcsAttachOverlayFilter',
        'HcsDetachOverlayFilter',
        'DeactivateLayer',
        'CimDismountImage',
      ]);
    } finally {
      await world.close();
    }
  },
  300_000,
);
