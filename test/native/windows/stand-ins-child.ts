/** Calls the bindings over the stand-ins of stand-ins.c, for stand-ins.test.ts. */

import { C } from '../../../src/native/library.ts';
import { BOOL } from '../../../src/native/windows/ctypes.ts';
import { Dlls, systemFolders, type Table } from '../../../src/native/windows/dll.ts';
import { ServiceControlManager, type ServiceHandle } from '../../../src/native/windows/services.ts';
import { AttachFlag } from '../../../src/native/windows/virtdisk.ts';
import { openWindowsApi } from '../../../src/native/windows/windows.ts';
import { printCases } from './print-cases.ts';

const STAND_INS = 'C:\\stand-ins';
const REG_SZ = 1;

/** Wine itself takes any DLL of that name for its own. */
class ServiceDlls extends Dlls {
  override open<Name extends string>(_file: string, table: Table<Name>) {
    return super.open('services.dll', table);
  }
}

const api = openWindowsApi(new Dlls((file) => [STAND_INS, ...systemFolders(file)]));
const { computecore, offreg, restartManager, virtdisk, dlls } = api;

const modifying = () =>
  computecore.withComputeSystem('vm', (system) =>
    computecore.modifyComputeSystem(system, 'vm', {
      ResourcePath: 'Scsi/0',
      RequestType: 'Add',
      Settings: { Secret: 'xyzzy' },
    }),
  );

await printCases({
  probe: () =>
    dlls
      .probe()
      .filter(({ path }) => path?.startsWith(STAND_INS))
      .map(({ file, missing }) => [file, missing]),

  /** Whether a DLL loads that needs one which lies in the working directory and on the PATH only. */
  planted: () => new Dlls(() => [STAND_INS]).open('needy.dll', { needy: [C.int, []] }).probe(),
  missingFunction: () =>
    new Dlls().open('kernel32.dll', { NoSuchFunction: [BOOL, []] }).call('try', 'NoSuchFunction'),

  list: () => computecore.enumerateComputeSystems({ Owners: ['cimlet-é'] }),
  listAll: () => computecore.enumerateComputeSystems(null),
  aborted: () => computecore.enumerateComputeSystems(null, AbortSignal.abort()),
  properties: () =>
    computecore.withComputeSystem('vm', (system) =>
      computecore.getComputeSystemProperties(system, 'vm', { PropertyTypes: ['Storage'] }),
    ),
  nobody: () => computecore.withComputeSystem('nobody', async () => 'somebody'),
  modify: () =>
    computecore.withComputeSystem('vm', (system) =>
      computecore.modifyComputeSystem(system, 'vm', { ResourcePath: 'Scsi/0', RequestType: 'Remove' }),
    ),
  modifyFails: modifying,
  grant: () => computecore.grantVmGroupAccess('C:\\x.vhdx'),

  disks: async () => {
    virtdisk.close(await virtdisk.createVhdx('C:\\base.vhdx', 20n << 30n));
    await virtdisk.createDifferencingVhdx('C:\\diff.vhdx', 'C:\\base.vhdx');
    const disk = await virtdisk.open('C:\\diff.vhdx', { readOnly: true });
    try {
      await virtdisk.attach(disk, 'C:\\diff.vhdx', AttachFlag.readOnly | AttachFlag.noDriveLetter);
      return await virtdisk.physicalPath(disk, 'C:\\diff.vhdx');
    } finally {
      virtdisk.close(disk);
    }
  },
  diskExists: () => virtdisk.createVhdx('C:\\exists.vhdx', 1n << 30n),
  detach: async () => {
    const disk = await virtdisk.open('C:\\base.vhdx');
    try {
      await virtdisk.detach(disk, 'C:\\base.vhdx');
    } finally {
      virtdisk.close(disk);
    }
  },

  hives: async () => {
    const base = offreg.openHive('C:\\base');
    const delta = offreg.openHive('C:\\delta');
    const merged = offreg.mergeHives([base, delta]);
    const key = await offreg.openKey(merged, 'Software\\x');
    const made = await offreg.createKey(offreg.createHive(), 'new');
    await offreg.setValue(made, 'v', { type: REG_SZ, data: Buffer.from('a\0b\0', 'latin1') });
    await offreg.deleteKey(made, 'old');
    await offreg.deleteKey(made, null);
    const value = await offreg.getValue(key, null, 'v');
    const absent = await offreg.getValue(key, 'sub', 'absent');
    await offreg.closeKey(key);
    offreg.saveHive(merged, 'C:\\merged');
    offreg.closeHive(merged);
    return { type: value?.type, data: Buffer.from(value?.data ?? []).toString('hex'), absent };
  },
  brokenHive: async () => offreg.openHive('C:\\broken'),

  configureService: () =>
    new ServiceControlManager(new ServiceDlls(() => [STAND_INS])).configure(7 as ServiceHandle, 'x', {
      displayName: 'X é',
      description: 'does x',
      commandLine: '"C:\\a b\\x.exe" y',
      restartAfterMs: [5000, 60_000],
      failuresForgottenAfter: 3600,
      preshutdownMs: 45_000,
    }),

  holders: () => restartManager.processesHolding(['C:\\a', 'C:\\b é']),
});
