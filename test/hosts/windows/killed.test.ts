/**
 * Processes killed in calls of Windows, in everything that the Windows host does: in the last of each function. `npm run chaos:windows`
 * kills in each single one, and has each fail; failures of the main effects: every-call, snapshot-calls, wcifs.
 */

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openWindowsWorld, type WindowsWorld } from '../../support/windows.ts';
import { canRunWindows } from '../../support/windows-tools.ts';
import { eachCall, eachFunction, type Met, strike } from './killing.ts';

const strikesAll = process.env.CIMLET_EVERY_CALL === '1';

/** What a view is made of, in the order in which it is taken. */
const ORDER: Record<string, string[]> = {
  'mount ForkedCIM': ['CimMountImage', 'BfSetupFilter'],
  'mount BlockCIM': ['CimMergeMountImage', 'BfSetupFilter'],
  'mount sealed BlockCIM': ['CimMergeMountVerifiedImage', 'BfSetupFilter'],
  'mount WCIFS': ['CreateSandboxLayer', 'ActivateLayer', 'PrepareLayer', 'BfSetupFilter'],
  'mount writable ForkedCIM': [
    'CimMountImage',
    'ActivateLayer',
    'HcsAttachOverlayFilter',
    'SetVolumeMountPointW',
  ],
  'mount writable BlockCIM': [
    'CimMergeMountImage',
    'ActivateLayer',
    'HcsAttachOverlayFilter',
    'SetVolumeMountPointW',
  ],
  'mount writable WCIFS': ['ActivateLayer', 'PrepareLayer', 'SetVolumeMountPointW'],
};
const UNDONE_BY: Record<string, string> = {
  CimMountImage: 'CimDismountImage',
  CimMergeMountImage: 'CimDismountImage',
  CimMergeMountVerifiedImage: 'CimDismountImage',
  CreateSandboxLayer: 'DestroyLayer',
  ActivateLayer: 'DeactivateLayer',
  PrepareLayer: 'UnprepareLayer',
  HcsAttachOverlayFilter: 'HcsDetachOverlayFilter',
  BfSetupFilter: 'BfRemoveMapping',
  SetVolumeMountPointW: 'DeleteVolumeMountPointW',
};

describe.runIf(canRunWindows())('the Windows host', () => {
  let world: WindowsWorld;
  let met: Met;
  const names = (kind: string) => [...met.keys()].filter((what) => what.startsWith(kind));

  beforeAll(
    async () => {
      world = await openWindowsWorld();
      const choice = strikesAll ? eachCall : eachFunction;
      const say = strikesAll ? (line: string) => void process.stdout.write(`${line}\n`) : undefined;
      met = await strike(world, choice, say);
    },
    strikesAll ? 24 * 3_600_000 : 1_200_000,
  );
  afterAll(() => world?.close());

  it('finishes what a killed process had begun, leaves nothing behind, and touches nothing of others', () => {
    expect(names('kill').length).toBeGreaterThan(80);
    for (const family of [' ForkedCIM', ' BlockCIM', 'sealed BlockCIM', 'WCIFS', 'LCOW'])
      expect(names('kill').some((what) => what.endsWith(family))).toBe(true);
  });

  it.each(Object.entries(ORDER))(
    'takes what a view is made of in order, and gives it back in reverse: %s',
    (effect, order) => {
      const undone = (taken: readonly string[]) => taken.map((call) => UNDONE_BY[call]).reverse();
      expect(met.get(effect)).toEqual(order);
      const dismounted = met.get(`dis${effect}`);
      if (dismounted !== undefined) expect(dismounted).toEqual(undone(order));
      for (const what of names('failure').filter((each) => each.endsWith(` in ${effect}`))) {
        const taken = order.slice(0, order.indexOf(what.split(' ')[2] ?? ''));
        expect(met.get(what)).toEqual([...taken, what.split(' ')[2], ...undone(taken)]);
      }
    },
  );
});
