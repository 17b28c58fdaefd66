/** What the Windows host says that it can do, by build, DLLs, privileges and root; the builds' rules are in test/native. */

import { expect, it } from 'vitest';
import { windowsCapabilities } from '../../../src/hosts/windows/capabilities.ts';
import type { WindowsFacts } from '../../../src/native/windows/capabilities.ts';
import { machine } from '../../native/windows/machine.ts';

const REFUSED = { available: false, reason: 'for a reason' };

/** Names of what is available: capabilities, and formats of scratches. */
function can(facts: WindowsFacts, refusals = {}): { capabilities: string[]; scratches: string[] } {
  const { capabilities, scratches } = windowsCapabilities(facts, refusals);
  const names = (table: object) =>
    Object.entries(table).flatMap(([name, { available }]) => (available ? [name] : []));
  return { capabilities: names(capabilities), scratches: names(scratches) };
}

it('keeps snapshots of WCIFS and Linux layers on a build without CimFS', () => {
  const { capabilities, scratches } = can(machine(17763, 1));
  expect(scratches).toEqual(['WCIFS', 'LCOW']);
  expect(capabilities).toEqual(expect.arrayContaining(['WCIFS.write', 'WCIFS.mount', 'active', 'commit']));
  expect(capabilities.filter((name) => name.includes('CIM.'))).toEqual([]);
});

it('needs the overlay filter for scratches over CIMs only', () => {
  const without = ['cimwriter.dll', 'computestorage.dll'];
  expect(can(machine(27800, 0, without)).scratches).toEqual(['WCIFS', 'LCOW']);
  expect(can(machine(27800, 0)).scratches).toEqual(['ForkedCIM', 'BlockCIM', 'WCIFS', 'LCOW']);
});

it('promises no snapshots where Windows has no containers', () => {
  const without = ['vmcompute.dll', 'computestorage.dll', 'computecore.dll', 'cimwriter.dll'];
  const { capabilities, scratches } = windowsCapabilities(machine(27800, 0, without));
  expect(Object.values(scratches).filter(({ available }) => available)).toEqual([]);
  for (const name of ['active', 'commit'] as const)
    expect(capabilities[name]).toMatchObject({ available: false, reason: expect.stringMatching(/\.dll/) });
});

it('keeps WCIFS when CimFS takes the machine down, and nothing where Windows keeps no layers', () => {
  expect(can(machine(27800, 0), { cim: REFUSED }).scratches).toEqual(['WCIFS', 'LCOW']);
  const { capabilities, scratches } = can(machine(27800, 0), { store: REFUSED });
  expect([scratches, capabilities.filter((name) => !['LCOW.mount', 'utilityVM'].includes(name))]).toEqual([
    [],
    [],
  ]);
});

it('says to run as an administrator without the privileges of one', () => {
  const facts = machine(27800, 0);
  const privileges = { ...facts.privileges, SeSecurityPrivilege: 'absent' as const };
  const { capabilities } = windowsCapabilities({ ...facts, privileges });
  for (const name of ['WCIFS.write', 'BlockCIM.write', 'ForkedCIM.mount', 'export'] as const)
    expect(capabilities[name]).toEqual({
      available: false,
      reason: 'this process may not use SeSecurityPrivilege',
      hint: 'run as an administrator',
    });
});
