/** Snapshots by key of the Windows host, as a Windows process makes, commits and removes them. */

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

const GIB = 2 ** 30;

describe.runIf(canRunWindows())('snapshots by key on Windows', () => {
  let world: WindowsWorld;
  let calls: NativeCall[];
  let disks: Record<string, number[]>;

  beforeAll(async () => {
    world = await openWindowsWorld();
    const { stdout, stderr } = await runWindowsProcess(world, {
      script: join(import.meta.dirname, 'snapshots.ts'),
    });
    expect(stderr).toBe('');
    disks = JSON.parse(stdout) as typeof disks;
    calls = await world.calls();
  }, 240_000);
  afterAll(() => world?.close());

  it('have disks of the size asked for, with file systems that cover them', () => {
    expect(disks).toEqual({
      usual: [10 * GIB, 10 * GIB],
      large: [30 * GIB, 30 * GIB],
      small: [2 * GIB, 2 * GIB],
      view: [GIB, GIB],
      bare: [40 * GIB, 0],
      bareAndLarge: [64 * GIB, 0],
      elsewhere: [10 * GIB, 10 * GIB],
    });
  });

  it('are grown as hcsshim grows them: the disk, then the volume while the disk is attached', () => {
    const start = calls.findIndex(({ call }) => call === 'ExpandSandboxSize');
    const steps = calls.slice(start, start + 8);
    const names = steps.map(({ call, args, result }) => [call, args.code ?? args.size ?? args.flags, result]);
    expect(names.filter(([call]) => call !== 'GetLayerMountPath')).toEqual([
      ['ExpandSandboxSize', 30 * GIB, '0x00000000'],
      ['OpenVirtualDisk', undefined, '0x00000000'],
      ['AttachVirtualDisk', 0x20, '0x00000000'],
      ['DeviceIoControl', 0x7405c, '0x00000000'],
      ['DeviceIoControl', 0x900f0, '0x00000000'],
      ['DetachVirtualDisk', undefined, '0x00000000'],
    ]);
    expect(steps.find(({ args }) => args.code === 0x900f0)?.args.sectors).toBe((30 * GIB) / 512);
  });

  it('share one empty disk of each size', () => {
    const made = calls.filter(({ call, args }) => call === 'CreateVirtualDisk' && args.parent !== null);
    expect(new Set(made.map(({ args }) => args.parent)).size).toBe(3);
    expect(calls.filter(({ call }) => call === 'HcsFormatWritableLayerVhd').length).toBe(3);
  });

  it('leave nothing attached or mounted', async () => {
    const devices = await readdir(join(world.drive, '../dosdevices'));
    expect(devices.filter((name) => name.startsWith('volume{'))).toEqual([]);
  });
});

it.runIf(canRunWindows())(
  'snapshots of WCIFS layers are prepared, mounted and committed on a build without CimFS',
  async () => {
    const world = await openWindowsWorld({ build: 17763, revision: 1 });
    try {
      const script = join(import.meta.dirname, 'old-build.ts');
      const { stdout, stderr } = await runWindowsProcess(world, { script });
      expect({ stdout, stderr }).toEqual({ stdout: 'done\n', stderr: '' });
    } finally {
      await world.close();
    }
  },
  240_000,
);
