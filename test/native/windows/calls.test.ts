/** The bindings as a Windows process: Wine's own DLLs, and contract doubles of those that only Windows Server has. */

import { copyFile, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { layoutOf } from '../../../src/native/library.ts';
import { CIMFS_FILE_METADATA } from '../../../src/native/windows/cim-calls.ts';
import { RM_PROCESS_INFO } from '../../../src/native/windows/rstrtmgr.ts';
import { CREATE_VIRTUAL_DISK_PARAMETERS } from '../../../src/native/windows/virtdisk.ts';
import { WC_LAYER_DESCRIPTOR } from '../../../src/native/windows/vmcompute.ts';
import { type NativeCall, openWindowsWorld, type WindowsWorld } from '../../support/windows.ts';
import { canRunWindows, windowsTools } from '../../support/windows-tools.ts';
import { type Results, runCases } from './cases.ts';

const SYSTEM = 'C:\\windows\\system32';
const VOLUME = '6d3e1f5c-0a4b-5c6d-8e7f-0123456789ab';

const SCRIPT = join(import.meta.dirname, 'child.ts');

describe.runIf(canRunWindows())('on a Windows without containers', () => {
  let world: WindowsWorld;
  let results: Results;

  beforeAll(async () => {
    world = await openWindowsWorld({ build: 26100, revision: 1742, doubles: [] });
    // Where a DLL must not be taken from: the working directory, and a folder on the PATH.
    const { doubles } = await windowsTools();
    for (const folder of ['.', 'path', 'doubles-elsewhere']) {
      await mkdir(join(world.drive, folder), { recursive: true });
      await copyFile(join(doubles, 'cimfs.dll'), join(world.drive, folder, 'cimfs.dll'));
    }
    const names = [
      ...['version', 'folders', 'words', 'layouts', 'privileges', 'unknownPrivilege', 'volumes'],
      ...['openDirectory', 'openMissing', 'closeNothing', 'notReparsePoint', 'manyErrors', 'holders'],
      ...['filters', 'missingDll', 'missingWriter', 'probe', 'override'],
    ];
    results = await runCases(world, SCRIPT, names, { WINEPATH: 'C:\\path' });
  });
  afterAll(() => world?.close());

  it('knows the version, and what the registry has and has not', () => {
    expect(results.version?.value).toEqual({
      major: 10,
      minor: 0,
      build: 26100,
      revision: 1742,
      text: '26100',
    });
  });

  it('takes DLLs from System32, and cimwriter.dll also from the program', () => {
    const found = results.folders?.value as Record<string, string | string[]> | undefined;
    const { system, cimfs, cimwriter, program } = found ?? {};
    expect(system).toBe(SYSTEM);
    expect(cimfs).toEqual([SYSTEM]);
    expect(cimwriter).toEqual([program, SYSTEM]);
    const path = 'C:\\doubles-elsewhere\\cimfs.dll';
    expect(results.override?.value).toEqual([path, `${SYSTEM}\\kernel32.dll`]);
  });

  it('says what is missing, whatever lies in the working directory and on the PATH', () => {
    const missing = {
      code: 'unsupported-host',
      message: 'load cimfs.dll: not available on this build of Windows',
      hint: '`cimlet doctor` says what this machine can do',
    };
    expect(results.missingDll?.error).toEqual(missing);
    expect(results.missingWriter?.error).toEqual(missing);
    const states = results.probe?.value as { file: string; path?: string; missing: string[] }[];
    const present = states.filter(({ path }) => path !== undefined).map(({ file }) => file);
    expect(present.sort()).toEqual([
      'advapi32.dll',
      'fltlib.dll',
      'kernel32.dll',
      'ntdll.dll',
      'rstrtmgr.dll',
      'virtdisk.dll',
    ]);
    expect(states.filter(({ path }) => path !== undefined).flatMap(({ missing }) => missing)).toEqual([]);
    expect(states.find(({ file }) => file === 'cimfs.dll')?.missing).toContain('CimMountImage');
  });

  it('has words for errors where Windows has', () => {
    expect(results.words?.value).toEqual([expect.stringMatching(/^Access.*denied/), null]);
  });

  it('lays structs out there as it does here', () => {
    const structs = [
      CIMFS_FILE_METADATA,
      CREATE_VIRTUAL_DISK_PARAMETERS,
      RM_PROCESS_INFO,
      WC_LAYER_DESCRIPTOR,
    ];
    expect(results.layouts?.value).toEqual(structs.map(layoutOf));
  });

  it('enables privileges while they are needed, and only them', () => {
    expect(results.privileges?.value).toEqual({
      outside: ['disabled', 'disabled', 'disabled'],
      nested: ['enabled', 'enabled', 'disabled'],
      afterNested: ['enabled', 'enabled', 'disabled'],
      error: 'Error: its own',
      after: ['disabled', 'disabled', 'disabled'],
    });
    expect(results.unknownPrivilege?.error).toMatchObject({
      function: 'LookupPrivilegeValueW',
      win32: 1313,
      args: ['NULL', '"SeNonsensePrivilege"', '(pointer)'],
    });
  });

  it('asks about volumes', () => {
    expect(results.volumes?.value).toEqual({
      listed: true,
      mountedAt: ['C:\\'],
      fileSystem: 'NTFS',
      root: 'C:\\',
      space: true,
    });
  });

  it('gives each call its own error, also of calls under way together', () => {
    expect(results.openDirectory?.value).toBe(true);
    expect(results.openMissing?.error).toMatchObject({
      code: 'not-found',
      dll: 'kernel32.dll',
      function: 'CreateFileW',
      kind: 'WIN32_ERROR',
      status: 3,
      statusName: 'ERROR_PATH_NOT_FOUND, 3',
      win32: 3,
      message: expect.stringMatching(
        /^open C:\\nothing\\there: \w.* \(CreateFileW in kernel32\.dll: ERROR_PATH_NOT_FOUND, 3\)$/,
      ) as unknown,
    });
    expect(results.closeNothing?.error).toMatchObject({ code: 'native', win32: 6, args: ['0x123456'] });
    expect(results.notReparsePoint?.error).toMatchObject({ code: 'failed-precondition', win32: 4390 });
    expect(results.manyErrors?.value).toEqual([[2], [3], [123]]);
  });

  it('asks who holds a file and which filters are loaded', () => {
    expect(results.holders?.value).toEqual([]);
    expect(results.filters?.value).toEqual([]);
  });
});

describe.runIf(canRunWindows())('on a Windows with CimFS and containers', () => {
  let world: WindowsWorld;
  let results: Results;
  let calls: NativeCall[];

  /** What the n-th call of ActivateLayer fails with. */
  const faults = [0x80070005, 0x80070020, 0x80070015, 0x8007048f, 0xc0000420];

  beforeAll(async () => {
    world = await openWindowsWorld();
    await mkdir(join(world.drive, 'cims'));
    await mkdir(join(world.drive, 'layers'));
    await world.plan([
      { call: 'CimMountImage', nth: 2, action: 'hang' },
      ...faults.map(
        (code, index) => ({ call: 'ActivateLayer', nth: index + 1, action: 'fail', code }) as const,
      ),
    ]);
    const names = [
      'forked',
      'lively',
      'metadata',
      'useAfterClose',
      'block',
      'layerErrors',
      'layerError',
      'layers',
      'bindings',
      'arguments',
      'noBinding',
      'filters',
    ];
    results = await runCases(world, SCRIPT, names);
    calls = await world.calls();
  });
  afterAll(() => world?.close());

  const argumentsOf = (name: string) => calls.filter(({ call }) => call === name).map(({ args }) => args);

  it('writes forked images, and hands over all that was said of a file', () => {
    expect(results.forked).toEqual({ value: { text: 'hello', written: '2024-05-05T16:26:40.000Z' } });
    expect(results.metadata).toEqual({});
    expect(argumentsOf('CimCreateFile').slice(0, 3)).toMatchObject([
      { path: 'Files', attributes: 0x10, size: 0 },
      { path: 'Files\\a.txt', attributes: 0x20, size: 5 },
      { path: 'Files\\link', attributes: 0x420, size: 0 },
    ]);
    expect(argumentsOf('CimMountImage')[0]).toMatchObject({ imagePath: 'C:\\cims', volume: `{${VOLUME}}` });
  });

  it('says what was done with what is closed', () => {
    expect(results.useAfterClose?.error).toMatchObject({
      code: 'native',
      kind: 'HRESULT',
      status: 0x80070006,
      win32: 6,
      message: expect.stringContaining('commit the CIM') as unknown,
    });
  });

  it('writes, merges, seals and mounts block images', () => {
    expect(results.block).toEqual({
      value: { file: 'cimwriter.dll', before: false, sealed: true, same: true, length: 32, text: 'hello' },
    });
  });

  it('writes with cimwriter.dll where it is, and mounts with cimfs.dll', () => {
    const dlls = (prefix: string) =>
      new Set(calls.filter(({ call }) => call.startsWith(prefix)).map(({ dll }) => dll));
    expect(dlls('CimCreate')).toEqual(new Set(['cimwriter']));
    expect(dlls('CimM')).toEqual(new Set(['cimfs']));
  });

  it('keeps the event loop alive during a long call', () => {
    expect(results.lively).toEqual({ value: false });
  });

  it('lists minifilters, and not the old kind', () => {
    expect(results.filters?.value).toEqual([
      { name: 'bindflt', altitude: '409800' },
      { name: 'wcifs', altitude: '189900' },
    ]);
    expect(calls.filter(({ call }) => call === 'FilterFindClose').map(({ result }) => result)).toEqual([
      '0x00000000',
    ]);
  });

  it('makes, activates, filters and destroys layers, and takes the strings that it is given', () => {
    expect(results.layers?.error).toBeUndefined();
    expect(results.layers?.value).toMatchObject({
      inactive: 'C:\\layers\\scratch',
      volume: expect.stringMatching(/^\\\\\?\\Volume\{[0-9a-f-]{36}\}$/) as unknown,
      gone: true,
      there: true,
      guid: expect.stringMatching(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/) as unknown,
      images: '{"Images":[]}',
    });
  });

  it('hands over the arguments of every call', () => {
    expect(results.arguments).toEqual({});
    const layerData = '{"SchemaVersion":{"Major":2,"Minor":1},"Layers":[]}';
    const expected: Record<string, object> = {
      CimCreateMergeLink: { newPath: 'm', oldPath: 'n' },
      CimTombstoneFile: { path: 't' },
      CimCreateHardLink: { newPath: 'new', oldPath: 'old' },
      CimCreateImage2: { imagePath: 'C:\\cims\\z.bcim', flags: 8, oldFSName: null, newFSName: 'z.cim' },
      CimAddFsToMergedImage2: { path: 'C:\\cims\\a.bcim\\l.cim', flags: 5 },
      CimMergeMountImage: {
        flags: 0x10,
        volume: `{${VOLUME}}`,
        images: [
          ['C:\\c1', '1.cim'],
          ['C:\\c2', '2.cim'],
        ],
      },
      CimMountVerifiedImage: {
        imagePath: 'C:\\c1',
        fsName: '1.cim',
        flags: 0x20,
        volume: `{${VOLUME}}`,
        hash: 'ab'.repeat(32),
      },
      HcsImportLayer: { layerPath: 'i1', sourceFolderPath: 'i2', layerData },
      HcsExportLayer: {
        layerPath: 'e1',
        exportFolderPath: 'e2',
        layerData,
        options: '{"IsWritableLayer":true}',
      },
      HcsDestroyLayer: { layerPath: 'd1' },
      HcsSetupBaseOSLayer: { layerPath: 's1', hasDisk: 0, options: '{"Type":"Container"}' },
      HcsSetupBaseOSVolume: { layerPath: 's2', volumePath: 'v2', options: '{"Type":"Vm"}' },
      HcsInitializeWritableLayer: { writableLayerPath: 'w1', layerData, options: '' },
      HcsAttachLayerStorageFilter: { layerPath: 'a1', layerData },
      HcsDetachLayerStorageFilter: { layerPath: 'a2' },
      PrepareLayer: { id: 'p1', parents: ['x\\p2', 'x\\p3'] },
      UnprepareLayer: { id: 'u1' },
      ImportLayer: { id: 'i3', path: 'i4', parents: [] },
      ExportLayer: { id: 'e3', path: 'e4', parents: ['x\\e5'] },
      ProcessBaseImage: { path: 'b1' },
      ProcessUtilityImage: { path: 'b2' },
      GrantVmAccess: { vm: 'g1', file: 'g2' },
    };
    for (const [name, args] of Object.entries(expected))
      expect([name, argumentsOf(name).at(-1)]).toEqual([name, args]);
  });

  it('shows a folder elsewhere, lists what is shown, and stops showing it', () => {
    expect(results.bindings).toEqual({
      value: {
        text: 'shown',
        mappings: [
          {
            root: expect.stringMatching(/root$/) as unknown,
            flags: 0x41,
            targets: [expect.stringMatching(/shown$/) as unknown],
          },
        ],
        after: [],
        left: [],
      },
    });
    expect(results.noBinding?.error).toMatchObject({ dll: 'bindfltapi.dll', win32: 1168, code: 'not-found' });
  });

  it('tells apart the errors that Windows gives', () => {
    expect(results.layerErrors).toEqual({
      value: ['access-denied', 'busy', 'unavailable', 'unavailable', 'corrupt'],
    });
    expect(results.layerError?.error).toMatchObject({
      code: 'not-found',
      win32: 2,
      args: ['(pointer)', '"C:\\\\layers\\\\nowhere"'],
    });
  });
});
