/** The disk that a utility VM boots with, as a Windows process makes it beside a snapshot's scratch. */

import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openWindowsWorld, runWindowsProcess } from '../../support/windows.ts';
import { canRunWindows } from '../../support/windows-tools.ts';

describe.runIf(canRunWindows())("a utility VM's own scratch", () => {
  it('differs from the template of the layer that has a utility VM, which every VM may read', async () => {
    const world = await openWindowsWorld();
    try {
      const script = join(import.meta.dirname, 'vm-scratch.ts');
      const { stdout, stderr } = await runWindowsProcess(world, { script });
      expect({ stdout, stderr }).toEqual({ stdout: 'done\n', stderr: '' });
      const calls = await world.calls();
      const template = /\\store\\snapshots\\[0-9a-f]{64}\.wcifs\\[0-9a-f]{32}\\UtilityVM\\SystemTemplate/;
      const made = calls.find(
        ({ args }) => String(args.path).endsWith('\\vm\\sandbox.vhdx') && args.size === 0,
      );
      expect(made).toMatchObject({
        call: 'CreateVirtualDisk',
        args: { parent: expect.stringMatching(template) },
      });
      const granted = calls
        .filter(({ call }) => call === 'HcsGrantVmGroupAccess')
        .map(({ args }) => args.file);
      expect(granted.slice(0, 2)).toEqual([
        expect.stringMatching(/\\SystemTemplateBase\.vhdx$/),
        expect.stringMatching(/\\SystemTemplate\.vhdx$/),
      ]);
      const bound = calls.find(({ call }) => call === 'BfSetupFilter')?.args.flags;
      expect(Number(bound) & 1).toBe(1);
      expect(calls.some(({ call }) => call === 'ExpandSandboxSize')).toBe(false);
    } finally {
      await world.close();
    }
  }, 240_000);
});
