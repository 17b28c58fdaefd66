/** Writable mounts of the Windows host: a scratch over the layers of a CIM, as a Windows process makes and ends them. */

import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type NativeCall,
  openWindowsWorld,
  runWindowsProcess,
  type WindowsWorld,
} from '../../support/windows.ts';
import { canRunWindows } from '../../support/windows-tools.ts';

const STEPS = /^(Cim(Mount|Dismount)Image|(Dea|A)ctivateLayer|Hcs\w+OverlayFilter|\w+VolumeMountPointW)$/;

describe.runIf(canRunWindows())('a writable mount on Windows', () => {
  let world: WindowsWorld;
  let calls: NativeCall[];

  beforeAll(async () => {
    world = await openWindowsWorld();
    const { stdout, stderr } = await runWindowsProcess(world, {
      script: join(import.meta.dirname, 'writable.ts'),
    });
    expect({ stdout, stderr }).toEqual({ stdout: 'done\n', stderr: '' });
    calls = (await world.calls()).filter(({ call }) => STEPS.test(call));
  }, 240_000);
  afterAll(() => world?.close());

  it('is made in order, with a disk that is not ready asked again, and ended in reverse', () => {
    const made = calls.findIndex(({ call }) => call === 'ActivateLayer') - 1;
    expect(calls.slice(made, made + 6).map(({ call, result }) => [call, result])).toEqual([
      ['CimMountImage', '0x00000000'],
      ['ActivateLayer', '0x80070015'],
      ['ActivateLayer', '0x8007048f'],
      ['ActivateLayer', '0x00000000'],
      ['HcsAttachOverlayFilter', '0x00000000'],
      ['SetVolumeMountPointW', '0x00000000'],
    ]);
    expect(calls.slice(-4).map(({ call }) => call)).toEqual([
      'DeleteVolumeMountPointW',
      'HcsDetachOverlayFilter',
      'DeactivateLayer',
      'CimDismountImage',
    ]);
  });

  it("is mounted where a job container without the bind filter has its root, as hcsshim's MountSandboxVolume does it", () => {
    const [mounted] = calls.filter(({ call }) => call === 'SetVolumeMountPointW');
    expect(mounted?.args).toEqual({
      directory: 'C:\\hpc\\app\\',
      volume: expect.stringMatching(/^\\\\\?\\Volume\{[0-9a-f-]{36}\}\\$/i),
    });
    const [removed] = calls.filter(({ call }) => call === 'DeleteVolumeMountPointW');
    expect(removed?.args).toEqual({ directory: 'C:\\hpc\\app\\' });
  });

  it('leaves no volume behind', async () => {
    const devices = await readdir(join(world.drive, '../dosdevices'));
    expect(devices.filter((name) => name.startsWith('volume{'))).toEqual([]);
  });
});
