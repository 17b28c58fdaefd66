/** The conformance suite as a Windows process: Node for Windows under Wine runs the product's TypeScript. */

import { afterAll, describe, expect, it } from 'vitest';
import { registerCases } from '../support/host-conformance.ts';
import { openWindowsWorld } from '../support/windows.ts';
import { ConformanceDriver } from '../support/windows-conformance.ts';
import { canRunWindows } from '../support/windows-tools.ts';
import { conformanceCases } from './cases.ts';

if (!canRunWindows())
  describe.skip('hosts as Windows processes [no Wine or mingw-w64]', () => it('runs', () => undefined));
else {
  const world = await openWindowsWorld();
  afterAll(() => world.close());

  describe('the in-memory host keeps the Host contract as a Windows process', async () => {
    const driver = new ConformanceDriver(world, 'memory');
    const ready = await driver.start();
    afterAll(() => driver.close());

    it('runs on Windows, of the build that this world says it is', () => {
      expect(ready).toMatchObject({ platform: 'win32', release: '10.0.27800' });
    });
    registerCases(conformanceCases, ready.capabilities, ({ name }) => driver.run(name));
  });

  describe('the Windows host keeps the Host contract as a Windows process', async () => {
    const driver = new ConformanceDriver(world, 'windows');
    const { capabilities } = await driver.start();
    afterAll(() => driver.close());
    registerCases(conformanceCases, capabilities, ({ name }) => driver.run(name));
  });
}
