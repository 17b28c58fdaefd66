/** Calls the bindings in a Windows process, for calls.test.ts. */

import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { win32 } from 'node:path';
import { layoutOf } from '../../../src/native/library.ts';
import { BindFlag } from '../../../src/native/windows/bindfltapi.ts';
import { CIMFS_FILE_METADATA, CimCreateFlag, CimMergeFlag } from '../../../src/native/windows/cim-calls.ts';
import { CimMountFlag } from '../../../src/native/windows/cimfs.ts';
import type { LayerData } from '../../../src/native/windows/computestorage.ts';
import { Dlls, systemFolders } from '../../../src/native/windows/dll.ts';
import { NativeError } from '../../../src/native/windows/native-error.ts';
import { RM_PROCESS_INFO } from '../../../src/native/windows/rstrtmgr.ts';
import { systemDirectory, systemMessage } from '../../../src/native/windows/system.ts';
import { CREATE_VIRTUAL_DISK_PARAMETERS } from '../../../src/native/windows/virtdisk.ts';
import { WC_LAYER_DESCRIPTOR } from '../../../src/native/windows/vmcompute.ts';
import { openWindowsApi } from '../../../src/native/windows/windows.ts';
import { printCases } from './print-cases.ts';

const VERSION_KEY = 'SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion';
const VOLUME = '6d3e1f5c-0a4b-5c6d-8e7f-0123456789ab';
const PRIVILEGES = ['SeBackupPrivilege', 'SeRestorePrivilege', 'SeSecurityPrivilege'] as const;

const api = openWindowsApi();
const { advapi32, bindfilter, cimfs, computestorage, kernel32, vmcompute } = api;

const times = {
  creationTime: 1n,
  lastWriteTime: 133_594_000_000_000_000n,
  changeTime: 3n,
  lastAccessTime: 4n,
};
const FILE = { ...times, attributes: 0x20, size: 5 };
const FOLDER = { ...times, attributes: 0x10, size: 0 };
const DATA: LayerData = { SchemaVersion: { Major: 2, Minor: 1 }, Layers: [] };

const privileges = () => PRIVILEGES.map((name) => advapi32.privilegeState(name));

/** A forked image, or one in a single file. */
async function writeImage(container: string, name: string, flags?: number): Promise<void> {
  const calls = api.cimWriteCalls();
  const image =
    flags === undefined
      ? await calls.createImage(container, null, name)
      : await calls.createImage2(container, flags, null, name);
  calls.closeStream(calls.createFile(image, 'Files\\', FOLDER));
  const stream = calls.createFile(image, 'Files\\a.txt', FILE);
  calls.writeStream(stream, Buffer.from('-hello-').subarray(1, 6));
  calls.closeStream(stream);
  await calls.commitImage(image);
  await calls.closeImage(image);
}

const CASES: Readonly<Record<string, () => unknown>> = {
  version: () => ({
    ...api.ntdll.getVersion(),
    revision: advapi32.machineDword(VERSION_KEY, 'UBR'),
    text: advapi32.machineString(VERSION_KEY, 'CurrentBuildNumber'),
    nothing: advapi32.machineDword(VERSION_KEY, 'no such value'),
    nowhere: advapi32.machineString('SOFTWARE\\no such key', 'x'),
  }),

  folders: () => ({
    system: systemDirectory(),
    cimfs: systemFolders('cimfs.dll'),
    cimwriter: systemFolders('cimwriter.dll'),
    program: win32.dirname(process.execPath),
  }),

  words: () => [systemMessage(5), systemMessage(0x1fffffff)],

  layouts: () =>
    [CIMFS_FILE_METADATA, CREATE_VIRTUAL_DISK_PARAMETERS, RM_PROCESS_INFO, WC_LAYER_DESCRIPTOR].map(layoutOf),

  privileges: async () => {
    const outside = privileges();
    const inside = await advapi32.withPrivileges(['SeBackupPrivilege', 'SeRestorePrivilege'], async () => {
      const nested = await advapi32.withPrivileges(['SeBackupPrivilege'], async () => privileges());
      return { nested, afterNested: privileges() };
    });
    const failing = advapi32.withPrivileges(['SeSecurityPrivilege'], async () => {
      throw new Error('its own');
    });
    return { outside, ...inside, error: await failing.catch(String), after: privileges() };
  },

  unknownPrivilege: () =>
    advapi32.withPrivileges(['SeNonsensePrivilege' as 'SeBackupPrivilege'], async () => 0),

  volumes: async () => {
    const volumes = await kernel32.findVolumes();
    const volume = await kernel32.volumeAt('C:');
    const { available, total } = await kernel32.diskSpace('C:\\windows');
    return {
      listed: volumes.includes(volume),
      mountedAt: await kernel32.mountPointsOf(volume),
      fileSystem: (await kernel32.volumeInformation('C:\\')).fileSystem,
      root: await kernel32.volumeRoot('C:\\windows\\system32'),
      space: available > 0n && total >= available,
    };
  },

  openDirectory: async () => {
    const handle = await kernel32.createFile('C:\\windows');
    kernel32.closeHandle(handle);
    return handle > 0;
  },
  openMissing: () => kernel32.createFile('C:\\nothing\\there'),
  closeNothing: () => kernel32.closeHandle(0x123456),
  notReparsePoint: async () => {
    const handle = await kernel32.createFile('C:\\windows');
    try {
      return await kernel32.reparsePoint(handle, 'C:\\windows');
    } finally {
      kernel32.closeHandle(handle);
    }
  },

  manyErrors: async () => {
    const paths = ['C:\\windows\\nothing', 'C:\\nothing\\there', 'C:\\windows\\bad?name'];
    const errors = Array.from({ length: 600 }, (_, index) =>
      kernel32.createFile(paths[index % 3] ?? '').catch((error: NativeError) => error.win32),
    );
    const found = await Promise.all(errors);
    return [0, 1, 2].map((kind) => [...new Set(found.filter((_, index) => index % 3 === kind))]);
  },

  holders: () => {
    writeFileSync('C:\\held.txt', 'x');
    return api.restartManager.processesHolding(['C:\\held.txt']);
  },
  filters: () => api.filters.minifilters(),

  missingDll: () => cimfs.mountImage({ container: 'C:\\x', name: 'y.cim' }, 0, VOLUME),
  missingWriter: () => api.cimWriteCalls().createImage('C:\\x', null, 'y.cim'),
  probe: () => api.dlls.probe(),
  override: () => {
    const mine = openWindowsApi(new Dlls((file) => ['C:\\doubles-elsewhere', ...systemFolders(file)]));
    return [mine.cimfs.dll.probe().path, mine.kernel32.dll.probe().path];
  },

  forked: async () => {
    await writeImage('C:\\cims\\', 'base.cim');
    await cimfs.mountImage({ container: 'C:\\cims\\', name: 'base.cim' }, 0, VOLUME);
    const file = `\\\\?\\Volume{${VOLUME}}\\Files\\a.txt`;
    const shown = { text: readFileSync(file, 'utf8'), written: statSync(file).mtime.toISOString() };
    await cimfs.dismountImage(VOLUME);
    return shown;
  },

  metadata: async () => {
    const calls = api.cimWriteCalls();
    const image = await calls.createImage('C:\\cims', 'base.cim', 'more.cim');
    const full = {
      ...FILE,
      attributes: 0x420,
      size: 0,
      securityDescriptor: Uint8Array.of(1, 0, 4, 128, ...new Array(16).fill(0)),
      reparseData: Buffer.from('0c0000a00c0000000000000000000000000000000000', 'hex'),
    };
    calls.closeStream(calls.createFile(image, 'Files\\link', full));
    calls.createHardLink(image, 'Files\\b.txt', 'Files\\a.txt');
    const stream = calls.createAlternateStream(image, 'Files\\a.txt:more:$DATA', 3);
    calls.writeStream(stream, Buffer.from('abc'));
    calls.closeStream(stream);
    calls.deletePath(image, 'Files\\b.txt');
    await calls.commitImage(image);
    await calls.closeImage(image);
  },

  useAfterClose: async () => {
    const calls = api.cimWriteCalls();
    const image = await calls.createImage('C:\\cims', null, 'closed.cim');
    await calls.closeImage(image);
    return calls.commitImage(image);
  },

  block: async () => {
    const { singleFile, verified, consistent } = CimCreateFlag;
    const [a, b, merged] = ['C:\\cims\\a.bcim', 'C:\\cims\\b.bcim', 'C:\\cims\\m.bcim'];
    const flags = singleFile | verified | consistent;
    const calls = api.cimWriteCalls();
    const hashes: Uint8Array[] = [];
    for (const container of [a, b]) {
      await writeImage(container, 'l.cim', flags);
      hashes.push(await calls.sealImage(container));
    }
    const image = await calls.createImage2(merged, flags, null, 'm.cim');
    for (const container of [b, a])
      await calls.addToMergedImage(
        image,
        `${container}\\l.cim`,
        CimMergeFlag.singleFile | CimMergeFlag.verified,
      );
    await calls.commitImage(image);
    await calls.closeImage(image);
    const before = (await calls.getVerificationInformation(merged)).sealed;
    hashes.push(await calls.sealImage(merged));
    const after = await calls.getVerificationInformation(merged);
    const sources = [b, a].map((container) => ({ container, name: 'l.cim' }));
    const whole = { container: merged, name: 'm.cim' };
    await cimfs.mergeMountVerifiedImage(whole, sources, CimMountFlag.singleFile, VOLUME, after.rootHash);
    const text = readFileSync(`\\\\?\\Volume{${VOLUME}}\\Files\\a.txt`, 'utf8');
    await cimfs.dismountImage(VOLUME);
    return {
      file: calls.file,
      before,
      sealed: after.sealed,
      same: Buffer.compare(hashes[2] ?? Buffer.alloc(0), after.rootHash) === 0,
      length: after.rootHash.length,
      text,
    };
  },

  /** The call hangs until a file appears that only this process's own event loop can write. */
  lively: async () => {
    let done = false;
    const mounting = cimfs.mountImage({ container: 'C:\\cims', name: 'base.cim' }, 0, VOLUME).then(() => {
      done = true;
    });
    for (let turn = 0; turn < 100; turn++) await new Promise((next) => setImmediate(next));
    const before = done;
    await writeFile('C:\\doubles\\release', '');
    await mounting;
    await cimfs.dismountImage(VOLUME);
    return before;
  },

  layers: async () => {
    const [base, scratch] = ['C:\\layers\\base', 'C:\\layers\\scratch'];
    await vmcompute.createLayer(base, '');
    await vmcompute.createSandboxLayer(scratch, [base]);
    await vmcompute.expandSandboxSize(scratch, 30n << 30n);
    const inactive = await vmcompute.getLayerMountPath(scratch);
    await vmcompute.activateLayer(scratch);
    const volume = await vmcompute.getLayerMountPath(scratch);
    const data: LayerData = { ...DATA, Layers: [{ Id: VOLUME, Path: base }], FilterType: 'UnionFS' };
    await computestorage.attachOverlayFilter(`${volume}\\`, data);
    await computestorage.detachOverlayFilter(`${volume}\\`, data);
    await vmcompute.deactivateLayer(scratch);
    await vmcompute.destroyLayer(scratch);
    return {
      inactive,
      volume,
      gone: !(await vmcompute.layerExists(scratch)),
      there: await vmcompute.layerExists(base),
      guid: await vmcompute.nameToGuid('base'),
      images: await vmcompute.getBaseImages(),
    };
  },

  /** What the doubles think of it is no matter here: each call has arguments that tell it from the others. */
  arguments: async () => {
    const calls = api.cimWriteCalls();
    const image = await calls.createImage2('C:\\cims\\z.bcim\\', CimCreateFlag.singleFile, null, 'z.cim');
    const hash = new Uint8Array(32).fill(0xab);
    const [one, two] = ['1', '2'].map((name) => ({ container: `C:\\c${name}\\`, name: `${name}.cim` }));
    if (one === undefined || two === undefined) throw new Error('unreachable');
    const attempts: (() => unknown)[] = [
      () => calls.createMergeLink(image, 'm\\', 'n'),
      () => calls.tombstoneFile(image, 't\\'),
      () => calls.createHardLink(image, 'new', 'old'),
      () => calls.closeImage(image),
      () => cimfs.mergeMountImage(one, [two], CimMountFlag.blockDevice, VOLUME),
      () => cimfs.mountVerifiedImage(one, CimMountFlag.singleFile, VOLUME, hash),
      () => computestorage.importLayer('i1', 'i2', DATA),
      () => computestorage.exportLayer('e1', 'e2', DATA, { IsWritableLayer: true }),
      () => computestorage.destroyLayer('d1'),
      () => computestorage.setupBaseOSLayer('s1', 0, { Type: 'Container' }),
      () => computestorage.setupBaseOSVolume('s2', 'v2', { Type: 'Vm' }),
      () => computestorage.initializeWritableLayer('w1', DATA),
      () => computestorage.attachLayerStorageFilter('a1', DATA),
      () => computestorage.detachLayerStorageFilter('a2'),
      () => vmcompute.prepareLayer('p1', ['x\\p2', 'x\\p3']),
      () => vmcompute.unprepareLayer('u1'),
      () => vmcompute.importLayer('i3', 'i4', []),
      () => vmcompute.exportLayer('e3', 'e4', ['x\\e5']),
      () => vmcompute.processBaseImage('b1'),
      () => vmcompute.processUtilityImage('b2'),
      () => vmcompute.grantVmAccess('g1', 'g2'),
    ];
    for (const attempt of attempts) {
      try {
        await attempt();
      } catch (error) {
        if (!(error instanceof NativeError)) throw error;
      }
    }
  },

  bindings: async () => {
    for (const folder of ['C:\\root', 'C:\\shown']) mkdirSync(folder);
    writeFileSync('C:\\shown\\f', 'shown');
    const { readOnly, noMultipleTargets } = BindFlag;
    await bindfilter.setupFilter('C:\\root', 'C:\\shown', readOnly | noMultipleTargets);
    const text = readFileSync('C:\\root\\f', 'utf8');
    const mappings = await bindfilter.getMappings('C:\\');
    await bindfilter.removeMapping('C:\\root');
    return { text, mappings, after: await bindfilter.getMappings('C:\\'), left: readdirSync('C:\\root') };
  },
  noBinding: () => bindfilter.removeMapping('C:\\windows'),

  layerErrors: async () => {
    const codes: unknown[] = [];
    for (let attempt = 0; attempt < 5; attempt++)
      await vmcompute
        .activateLayer('C:\\layers\\nowhere')
        .catch((error: NativeError) => codes.push(error.code));
    return codes;
  },
  layerError: () => vmcompute.activateLayer('C:\\layers\\nowhere'),
};

await printCases(CASES);
