/** The contract of containerd's Snapshotter on the Windows host, as a Windows process. containerd's own suite never runs on its CimFS snapshotters. */

import { afterAll, describe, it } from 'vitest';
import { openWindowsWorld } from '../support/windows.ts';
import { ConformanceDriver } from '../support/windows-conformance.ts';
import { canRunWindows } from '../support/windows-tools.ts';
import { snapshotterCases } from './snapshotter.ts';

if (!canRunWindows())
  describe.skip('snapshots with names on Windows [no Wine or mingw-w64]', () => it('runs', () => undefined));
else
  describe("snapshots with names on the Windows host with BlockCIM keep containerd's contract", async () => {
    const world = await openWindowsWorld();
    const driver = new ConformanceDriver(world, 'windows snapshotter');
    await driver.start();
    afterAll(async () => {
      driver.close();
      await world.close();
    });
    for (const { name, needs } of snapshotterCases) {
      const missing = needs.filter((need) => need !== 'files');
      const suffix = missing.length === 0 ? '' : ` [no ${missing.join(', ')}]`;
      it.skipIf(missing.length > 0)(name + suffix, () => driver.run(name));
    }
  });
