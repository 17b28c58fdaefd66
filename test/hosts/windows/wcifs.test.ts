/** WCIFS layers: what Windows is given to make them of, and what becomes of it. */

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hexOf } from '../../../src/hosts/identity.ts';
import {
  type NativeCall,
  openWindowsWorld,
  runWindowsProcess,
  type WindowsWorld,
} from '../../support/windows.ts';
import { canRunWindows } from '../../support/windows-tools.ts';
import type { WcifsOutcome } from './wcifs.ts';

const script = (name: string) => join(import.meta.dirname, name);

describe.runIf(canRunWindows())('WCIFS layers', () => {
  let world: WindowsWorld;
  let outcome: WcifsOutcome;
  let calls: NativeCall[];
  const inLayer = (index: number, path: string) => {
    const hex = hexOf(outcome.chain[index] ?? '');
    return join(world.drive, 'wcifs/snapshots', `${hex}.wcifs`, hex.slice(0, 32), path);
  };
  const inode = async (index: number, path: string) => (await stat(inLayer(index, path))).ino;
  /** What was restored of a file beside its data. */
  const streamsOf = async (index: number, path: string) => {
    const name = (await inode(index, path)).toString(16).padStart(16, '0');
    return (await readFile(join(world.drive, 'doubles/streams', name))).toString('latin1');
  };

  beforeAll(async () => {
    world = await openWindowsWorld();
    const { stdout, stderr } = await runWindowsProcess(world, { script: script('wcifs.ts') });
    expect(stderr).toBe('');
    outcome = JSON.parse(stdout) as WcifsOutcome;
    calls = await world.calls();
  }, 240_000);
  afterAll(() => world?.close());

  it('are shown with what the upper one changes, takes away and links', () => {
    expect(outcome.shown).toEqual({
      'across.txt': 'lower',
      'dir\\lower.txt': 'lower',
      'emptied\\young.txt': 'young',
      'kept.txt': 'kept',
      'new-link.txt': 'new',
      'new.txt': 'new',
      'odd.txt': 'odd',
      'own-link.txt': 'kept',
      // What Windows would show as links; Wine has none.
      shortcut: '',
      symlink: '',
    });
    expect(outcome.layers.map(({ faults }) => faults)).toEqual([[], []]);
    expect(outcome.leftovers).toEqual([]);
  });

  it('keep descriptors, extended attributes, alternate streams and links of both kinds', async () => {
    const odd = await streamsOf(0, 'Files/odd.txt');
    expect(odd).toContain('NOTE\0note');
    expect(odd).toContain(Buffer.from(':more:$DATA', 'utf16le').toString('latin1'));
    expect(odd).toContain('another stream');
    expect(odd.charCodeAt(0)).toBe(3);
    expect(await streamsOf(1, 'Files/new.txt')).toContain('aside');
    for (const [index, name] of [
      [0, 'symlink'],
      [1, 'shortcut'],
    ] as const)
      expect(await streamsOf(index, `Files/${name}`)).toContain('\x0c\0\0\xa0');
    expect(await inode(0, 'Files/own-link.txt')).toBe(await inode(0, 'Files/kept.txt'));
    expect(await inode(1, 'Files/new-link.txt')).toBe(await inode(1, 'Files/new.txt'));
    expect(await inode(1, 'Files/across.txt')).toBe(await inode(0, 'Files/dir/lower.txt'));
  });

  it("have files' and directories' times as the tar has them, also where something was taken away", async () => {
    for (const path of ['Files/new.txt', 'Files/emptied', 'Files'])
      expect((await stat(inLayer(1, path))).mtime.toISOString(), path).toBe('2024-05-06T07:08:09.123Z');
  });

  it('share the files of their utility VM, but none that is changed in place', async () => {
    expect(await inode(1, 'UtilityVM/Files/vm.txt')).toBe(await inode(0, 'UtilityVM/Files/vm.txt'));
    const bcd = 'UtilityVM/Files/EFI/Microsoft/Boot/BCD';
    expect(await inode(1, bcd)).not.toBe(await inode(0, bcd));
    expect(await readFile(inLayer(1, bcd), 'utf8')).toBe('bcd');
    expect(await readFile(inLayer(1, 'UtilityVM/Files/vm2.txt'), 'utf8')).toBe('vm2');
    expect(existsSync(inLayer(0, 'UtilityVM/Files/vm2.txt'))).toBe(false);
  });

  it('are made by Windows in its order, with privileges that are taken back', () => {
    const layer = /^(Process|Create|Activate|Prepare|Unprepare|Deactivate|Destroy|Import|Export)/;
    const order = [
      ...['ProcessBaseImage', 'ProcessUtilityImage'],
      ...['CreateSandboxLayer', 'ActivateLayer', 'PrepareLayer'],
      ...['UnprepareLayer', 'DeactivateLayer', 'DestroyLayer'],
      ...['ImportLayer', 'ProcessUtilityImage'],
      ...['CreateSandboxLayer', 'ActivateLayer', 'PrepareLayer'],
      ...['UnprepareLayer', 'DeactivateLayer', 'DestroyLayer'],
      'ExportLayer',
    ];
    const made = calls.filter(({ call }) => layer.test(call)).map(({ call }) => call);
    // What is refused later comes after it.
    expect(made.slice(0, order.length)).toEqual(order);
    expect(new Set(outcome.privileges)).toEqual(new Set(['disabled']));
    const prepared = calls.filter(({ call }) => call === 'PrepareLayer').at(-1)?.args.parents as string[];
    expect(prepared.map((path) => path.slice(-32))).toEqual(
      outcome.chain.toReversed().map((chainId) => hexOf(chainId).slice(0, 32)),
    );
  });

  it('are refused where they would lead Windows to write or link elsewhere', () => {
    expect(outcome.refused).toEqual([
      expect.stringContaining("names that end in .$wcidirs$ are Windows' own"),
      expect.stringContaining('links stay within Files, or within UtilityVM'),
    ]);
  });

  it('are exported as what they change, with all that they hold, and without what Windows made of them', async () => {
    const [base = '', upper = ''] = [0, 1].map((index) =>
      join(world.drive, `wcifs-blobs/exported-${index}.tar`),
    );
    // What it says of records that it doesn't know is of no interest.
    const tarOf = (...args: string[]) =>
      execFileSync('tar', ['--warning=no-unknown-keyword', ...args], { encoding: 'utf8' });
    const names = (tar: string) => tarOf('-tf', tar).trim().split('\n');
    expect(names(upper).filter((name) => !name.startsWith('UtilityVM'))).toEqual([
      ...['Files/', 'Files/.wh.gone.txt', 'Files/across.txt', 'Files/dir/', 'Files/dir/.wh.low.txt'],
      ...['Files/emptied/', 'Files/emptied/.wh.old.txt', 'Files/emptied/young.txt', 'Files/new-link.txt'],
      ...['Files/new-link.txt:aside', 'Files/new.txt', 'Files/new.txt:aside', 'Files/shortcut'],
      ...['Hives/', 'Hives/SYSTEM_DELTA'],
    ]);
    expect(names(upper)).toContain('UtilityVM/Files/vm2.txt');
    const baseNames = names(base);
    expect(baseNames.filter((name) => /Hives|vhdx/.test(name))).toEqual([]);
    expect(baseNames).toContain('UtilityVM/Files/EFI/Microsoft/Boot/BCD');
    const shown = tarOf('-tvf', upper);
    expect(shown).toMatch(/^l.* Files\/shortcut -> new\.txt$/m);
    expect(shown).toMatch(/2024-05-06 .* Files\/new\.txt$/m);
    expect(tarOf('-xOf', upper, 'Files/new.txt:aside')).toBe('aside');
  });

  it('leave nothing of a view whose record was lost when its process was killed', async () => {
    await world.plan([{ call: 'BfSetupFilter', action: 'kill' }]);
    expect(await runWindowsProcess(world, { script: script('wcifs-life.ts') })).toMatchObject({ stdout: '' });
    const mounts = join(world.drive, 'life/mounts');
    for (const name of await readdir(mounts)) await rm(join(mounts, name));
    await world.plan([]);
    const { stdout, stderr } = await runWindowsProcess(world, { script: script('wcifs-life.ts') });
    expect({ stdout, stderr }).toEqual({ stdout: 'done\n', stderr: '' });
    const devices = await readdir(join(world.drive, '../dosdevices'));
    expect(devices.filter((name) => name.startsWith('volume{'))).toEqual([]);
    for (const name of ['snapshots', 'scratches', 'exports', 'mounts'])
      expect(await readdir(join(world.drive, 'life', name)), name).toEqual([]);
  }, 240_000);
});
