/** What running compute systems use is seen and left alone by the Windows host. */

import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openWindowsWorld, runWindowsProcess } from '../../support/windows.ts';
import { canRunWindows } from '../../support/windows-tools.ts';

describe.runIf(canRunWindows())('compute systems that run beside the Windows host', () => {
  it.each([
    ['are seen with what they use, which is neither removed, dismounted nor cleaned up', 'in-use.ts'],
    ['keep the scratches and views that they run on, and job containers do as well', 'kept.ts'],
  ])(
    '%s',
    async (_, script) => {
      const world = await openWindowsWorld();
      try {
        const options = { script: join(import.meta.dirname, script) };
        const { stdout, stderr } = await runWindowsProcess(world, options);
        expect({ stdout, stderr }).toEqual({ stdout: 'done\n', stderr: '' });
      } finally {
        await world.close();
      }
    },
    240_000,
  );
});
