/** Mounts of the Windows host in utility VMs, with layers that it wrote; and the layer documents of mounts. */

import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openWindowsWorld, runWindowsProcess } from '../../support/windows.ts';
import { canRunWindows } from '../../support/windows-tools.ts';

describe.runIf(canRunWindows())('a mount in a utility VM', () => {
  it('shows Linux layers, or block CIMs under a scratch, and outlives the process', async () => {
    const world = await openWindowsWorld();
    try {
      const script = join(import.meta.dirname, 'vm-mounts.ts');
      const { stdout, stderr } = await runWindowsProcess(world, { script });
      expect({ stdout, stderr }).toEqual({ stdout: 'done\n', stderr: '' });
    } finally {
      await world.close();
    }
  }, 240_000);
});
