/** What reaches a DLL, and what comes back, of calls into DLLs that Wine hasn't or doesn't do much with. */

import { execFileSync } from 'node:child_process';
import { copyFile, mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openWindowsWorld, type WindowsWorld } from '../../support/windows.ts';
import { canRunWindows } from '../../support/windows-tools.ts';
import { type Results, runCases } from './cases.ts';

const COMPILER = 'x86_64-w64-mingw32-gcc';
// The headers declare functions of virtdisk.dll as another DLL's.
const FLAGS = [
  '-std=gnu11',
  '-Wall',
  '-Wextra',
  '-Werror',
  '-Wno-attributes',
  '-shared',
  '-static-libgcc',
  '-s',
];
const FILES = ['computecore.dll', 'virtdisk.dll', 'offreg.dll', 'rstrtmgr.dll'];

/** A DLL that needs another one, and that other one where it must not be found. */
async function plant(drive: string, folder: string): Promise<void> {
  const planted = join(drive, 'planted.dll');
  const build = (output: string, code: string, ...libraries: string[]) =>
    execFileSync(COMPILER, ['-shared', '-s', '-o', output, '-xc', '-', '-xnone', ...libraries], {
      input: code,
    });
  build(planted, 'int planted(void) { return 1; }');
  build(join(folder, 'needy.dll'), 'int planted(void); int needy(void) { return planted(); }', planted);
  await mkdir(join(drive, 'path'));
  await copyFile(planted, join(drive, 'path/planted.dll'));
}

describe.runIf(canRunWindows())('calls into stand-ins', () => {
  let world: WindowsWorld;
  let results: Results;
  let calls: string[];

  beforeAll(async () => {
    world = await openWindowsWorld({ doubles: [] });
    const folder = join(world.drive, 'stand-ins');
    await mkdir(folder);
    const source = join(import.meta.dirname, 'stand-ins.c');
    const built = join(folder, 'built.dll');
    execFileSync(COMPILER, [...FLAGS, '-o', built, source]);
    for (const file of FILES) await copyFile(built, join(folder, file));
    await copyFile(built, join(folder, 'services.dll'));
    await plant(world.drive, folder);
    const names = [
      ...[
        'planted',
        'missingFunction',
        'probe',
        'list',
        'listAll',
        'aborted',
        'properties',
        'nobody',
        'modify',
        'modifyFails',
        'grant',
      ],
      ...['disks', 'diskExists', 'detach', 'hives', 'brokenHive', 'configureService', 'holders'],
    ];
    const script = join(import.meta.dirname, 'stand-ins-child.ts');
    results = await runCases(world, script, names, { WINEPATH: 'C:\\path' });
    calls = (await readFile(join(folder, 'calls.txt'), 'latin1')).split('\n');
  });
  afterAll(() => world?.close());

  const callsOf = (prefix: string) => calls.filter((line) => line.startsWith(prefix));

  it('takes what a DLL needs neither from the working directory nor from the PATH', () => {
    expect(results.planted?.value).toMatchObject({
      path: 'C:\\stand-ins\\needy.dll',
      missing: ['needy'],
      problem: expect.stringContaining('load') as unknown,
    });
  });

  it('names a function that this build lacks', () => {
    expect(results.missingFunction?.error).toMatchObject({
      code: 'unsupported-host',
      message: 'load NoSuchFunction in kernel32.dll: not available on this build of Windows',
    });
  });

  it('finds every function of the tables', () => {
    expect(results.probe?.value).toEqual(FILES.map((file) => [file, []]));
  });

  it('waits for the answers of the Host Compute Service, and frees them', () => {
    expect(results.list?.value).toEqual([{ Id: 'vm-é' }]);
    expect(results.listAll?.value).toEqual([{ Id: 'vm-é' }]);
    expect(callsOf('HcsEnumerate')[0]).toMatch(
      /^HcsEnumerateComputeSystems \{"Owners":\["cimlet-\S+"\]\} 0*51$/,
    );
    expect(callsOf('HcsEnumerate')[1]).toMatch(/ null 0*51$/);
    expect(callsOf('HcsWait').length).toBe(2 * 5 + 1);
    const closed = callsOf('HcsCloseOperation');
    expect(closed.length).toBe(callsOf('HcsCreateOperation').length);
    expect(closed.filter((line) => line.endsWith(' freed')).length).toBe(4);
    expect(closed.filter((line) => line.endsWith(' leaked'))).toEqual([]);
  });

  it('stops waiting when told to', () => {
    expect(results.aborted?.error).toMatchObject({
      code: 'cancelled',
      message: 'list compute systems: cancelled',
    });
  });

  it('closes a compute system after use, whatever came of it', () => {
    expect(results.nobody?.error).toMatchObject({ code: 'not-found', status: 0x8037010e });
    expect(callsOf('HcsOpenComputeSystem vm 0x10000000').length).toBe(3);
    expect(callsOf('HcsCloseComputeSystem 00007fff00000052').length).toBe(3);
    expect(results.properties?.error).toMatchObject({ code: 'corrupt' });
  });

  it('repeats of a document only what HCS says about it', () => {
    expect(results.modify).toEqual({});
    expect(results.modifyFails?.error).toMatchObject({
      code: 'busy',
      win32: 32,
      message:
        'modify compute system vm: Add Scsi/0: disk "x" is in use ' +
        '(HcsWaitForOperationResult in computecore.dll: ERROR_SHARING_VIOLATION, 0x80070020)',
    });
    expect(callsOf('HcsModify')[1]).toContain('"Settings":{"Secret":"xyzzy"}');
    expect(JSON.stringify(results.modifyFails)).not.toContain('xyzzy');
  });

  it('makes disks, attaches them and finds their drives', () => {
    expect(results.disks).toEqual({ value: '\\\\.\\PhysicalDrive3' });
    const [base, difference] = callsOf('CreateVirtualDisk');
    expect(base).toBe(
      'CreateVirtualDisk 3 ec984aec C:\\base.vhdx 0x0 0 0 0 v2 size 21474836480 block 1048576 parent null open 0x0 0',
    );
    expect(difference).toContain('v2 size 0 block 1048576 parent C:\\base.vhdx open 0x8');
    expect(callsOf('OpenVirtualDisk')[0]).toBe('OpenVirtualDisk 0 C:\\diff.vhdx 0x0 0x88 v2 read-only 1');
    expect(callsOf('AttachVirtualDisk')).toEqual(['AttachVirtualDisk 1 0 0x3 0 v1 0']);
    expect(callsOf('GetVirtualDiskPhysicalPath')).toEqual(['GetVirtualDiskPhysicalPath 1 520']);
    expect(results.diskExists?.error).toMatchObject({ code: 'already-exists', win32: 80 });
    expect(results.detach?.error).toMatchObject({ code: 'unavailable', win32: 21, kind: 'WIN32_ERROR' });
  });

  it('opens, merges, changes and saves hives', () => {
    expect(results.hives).toEqual({ value: { type: 1, data: '76000000' } });
    const numbers = (line: string) => line.replace(/\b0+([0-9a-f]+)\b/g, '$1');
    expect(callsOf('OR').map(numbers)).toEqual([
      'OROpenHive C:\\base',
      'OROpenHive C:\\delta',
      'ORMergeHives 2 11 12',
      'OROpenKey 13 Software\\x',
      'ORCreateKey 10 new 0 0 0',
      'ORSetValue 15 v 1 61..0 4',
      'ORDeleteKey 15 old',
      'ORDeleteKey 15 null',
      'ORGetValue 14 null v 0 0',
      'ORGetValue 14 null v 1 4',
      'ORGetValue 14 sub absent 0 0',
      'ORCloseKey 14',
      'ORSaveHive 13 C:\\merged 10.0',
      'ORCloseHive 13',
      'OROpenHive C:\\broken',
    ]);
    expect(results.brokenHive?.error).toMatchObject({ code: 'corrupt', win32: 1009 });
  });

  it('tells the service control manager all of a service, and what it does not know of it', () => {
    expect(results.configureService).toEqual({ value: ['delayed start'] });
    const begin = calls.findIndex((line) => line.startsWith('ChangeServiceConfigW'));
    expect(calls.slice(begin, begin + 5)).toEqual([
      expect.stringMatching(
        /^ChangeServiceConfigW 0+7 0x10 2 1 "C:\\a b\\x\.exe" y 0 0 0 0 0 X (é|\xe9)/,
      ) as unknown,
      expect.stringMatching(/^description 0+7 does x$/) as unknown,
      'failure actions 3600 0 0 restart 5000 restart 60000',
      'failure flag 1',
      'preshutdown 45000',
    ]);
  });

  it('lists processes that hold files, however many', () => {
    const holders = results.holders?.value as unknown[];
    expect(holders.length).toBe(20);
    expect(holders.slice(0, 2)).toEqual([
      { processId: 1000, name: 'Program 0' },
      { processId: 1001, name: 'Program 1', service: 'WinDefend' },
    ]);
    const once = callsOf('Rm').slice(0, 5);
    expect(once.map((line) => line.split(' ')[0])).toEqual([
      'RmStartSession',
      'RmRegisterResources',
      'RmGetList',
      'RmGetList',
      'RmEndSession',
    ]);
    expect(callsOf('RmRegisterResources')[0]).toMatch(/^RmRegisterResources 5 2 C:\\a C:\\b .* 0 0 0 0$/);
  });
});
