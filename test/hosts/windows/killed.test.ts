/**
 * Calls of Windows failing, and processes killed in them, in everything that the Windows host does: the first of each function fails, the
 * last one is a process's last. `npm run chaos:windows` has each single one fail and be the last, and says which: of all effects, or of those whose
 * names match CIMLET_EVERY_CALL.
 */

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openWindowsWorld, type WindowsWorld } from '../../support/windows.ts';
import { canRunWindows } from '../../support/windows-tools.ts';
import { type Met, strike } from './killing.ts';
import { eachCall, eachFunction } from './strikes.ts';

const which = process.env.CIMLET_EVERY_CALL;
const isPart = which !== undefined && which !== '.';

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
      const choice = which === undefined ? eachFunction : eachCall(new RegExp(which));
      const say = which === undefined ? undefined : (line: string) => void process.stdout.write(`${line}\n`);
      met = await strike(world, choice, say);
    },
    which === undefined ? 1_800_000 : 4 * 3_600_000,
  );
  afterAll(() => world?.close());

  it.skipIf(isPart)(
    'leaves nothing of what fails, finishes what a killed process had begun, and touches nothing of others',
    () => {
      expect(names('kill').length).toBeGreaterThan(100);
      expect(names('failure').length).toBeGreaterThan(70);
      for (const family of [' ForkedCIM', ' BlockCIM', 'sealed BlockCIM', 'WCIFS', 'LCOW'])
        expect(names('kill').some((what) => what.endsWith(family))).toBe(true);
    },
  );

  it.skipIf(isPart).each([
    ['CimDeletePath', 'unpack ForkedCIM'],
    ['CimTombstoneFile', 'unpack BlockCIM'],
    ['CimSealImage', 'unpack BlockCIM'],
    ['CimGetVerificationInformation', 'unpack BlockCIM'],
    ['ImportLayer', 'unpack WCIFS'],
    ['CimAddFsToMergedImage2', 'merge BlockCIM'],
    ['CimMergeMountVerifiedImage', 'mount BlockCIM'],
    ['CreateSandboxLayer', 'prepare WCIFS'],
    ['PrepareLayer', 'mount writable WCIFS'],
    ['ExportLayer', 'export WCIFS'],
  ])('has %s fail, and be the last, in %s', (call, effect) => {
    const met = [...names('failure'), ...names('kill after')].map((what) =>
      what.replace(/ \d+ in /, ' in ').replace('sealed ', ''),
    );
    expect(met).toEqual(
      expect.arrayContaining([`failure ${call} in ${effect}`, `kill after ${call} in ${effect}`]),
    );
  });

  it.each(Object.entries(ORDER))(
    'takes what a view is made of in order, and gives it back in reverse: %s',
    (effect, order) => {
      const undone = (taken: readonly string[]) => taken.map((call) => UNDONE_BY[call]).reverse();
      expect(met.get(effect)).toEqual(order);
      const dismounted = met.get(`dis${effect}`);
      if (dismounted !== undefined) expect(dismounted).toEqual(undone(order));
      for (const what of names('failure').filter((each) => each.endsWith(` in ${effect}`))) {
        const taken = order.slice(0, order.indexOf(what.split(' ')[1] ?? ''));
        expect(met.get(what)).toEqual([...taken, what.split(' ')[1], ...undone(taken)]);
      }
    },
  );
});
