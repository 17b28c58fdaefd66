/** Views in utility VMs, as a Windows process attaches and detaches them. */

import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Fault, openWindowsWorld, runWindowsProcess, type WindowsWorld } from '../../support/windows.ts';
import { canRunWindows } from '../../support/windows-tools.ts';

/** In the changes of a view of three block CIMs with a scratch. */
const KILLS: Fault[] = [
  { call: 'HcsModifyComputeSystem', nth: 1, action: 'kill-after' },
  { call: 'HcsModifyComputeSystem', nth: 4, action: 'kill' },
  { call: 'HcsModifyComputeSystem', nth: 7, action: 'kill-after' },
];

describe.runIf(canRunWindows())('a view in a utility VM', () => {
  let world: WindowsWorld;
  const run = (what: string) =>
    runWindowsProcess(world, { script: join(import.meta.dirname, 'vm-attachments.ts'), args: [what] });

  beforeAll(async () => {
    world = await openWindowsWorld();
  });
  afterAll(() => world?.close());

  it('is given whole or not at all, shares what others have, and is taken away in reverse', async () => {
    const { stdout, stderr } = await run('all');
    expect({ stdout, stderr }).toEqual({ stdout: 'done\n', stderr: '' });
    const told = (await world.calls()).filter(({ call }) => call === 'HcsModifyComputeSystem');
    const documents = told.slice(0, 7).map(({ args }) => JSON.parse(String(args.document)));
    expect(documents.map((each) => each.ResourcePath ?? each.GuestRequest.ResourceType)).toEqual([
      ...[63, 62, 61].map((lun) => expect.stringMatching(`Attachments/${lun}$`)),
      'WCOWBlockCims',
      expect.stringMatching('Attachments/60$'),
      'MappedVirtualDisk',
      'CombinedLayers',
    ]);
  }, 240_000);

  it('is found and taken away by whoever comes after a kill, before and after a change', async () => {
    for (const kill of KILLS) {
      await world.plan([kill]);
      expect(await run('attach')).toMatchObject({ stdout: '', stderr: '' });
      await world.plan([]);
      const { stdout, stderr } = await run('recover');
      expect({ kill, stdout, stderr }).toEqual({ kill, stdout: 'done\n', stderr: '' });
    }
  }, 300_000);
});
