/** What running compute systems use is seen and left alone by the Windows host. */

import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openWindowsWorld, runWindowsProcess } from '../../support/windows.ts';
import { canRunWindows } from '../../support/windows-tools.ts';

describe.runIf(canRunWindows())('compute systems that run beside the Windows host', () => {
  it('are seen with what they use, which is neither removed, dismounted nor cleaned up', async () => {
    const world = await openWindowsWorld();
    try {
      const script = join(import.meta.dirname, 'in-use.ts');
      const { stdout, stderr } = await runWindowsProcess(world, { script });
      expect({ stdout, stderr }).toEqual({ stdout: 'done\n', stderr: '' });
    } finally {
      await world.close();
    }
  }, 240_000);
});
