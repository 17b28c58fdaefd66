/** Scratches of Linux layers as a Windows process makes them; and `cimlet vhd` as a Windows process, on its own disks and on those of others. */

import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { snapshotGuid } from '../../../src/hosts/identity.ts';
import { hasTool, requireOrSkip } from '../../support/requirements.ts';
import { openWindowsWorld, runWindowsProcess, type WindowsWorld } from '../../support/windows.ts';
import { canRunWindows } from '../../support/windows-tools.ts';
import type { LinuxDisks } from './linux-scratch.ts';

const MIB = 2 ** 20;
const canCheck = ['qemu-img', 'e2fsck', 'mke2fs'].every((tool) => requireOrSkip(tool, hasTool(tool)));

describe.runIf(canRunWindows())('Linux disks on Windows', () => {
  let world: WindowsWorld;
  let disks: LinuxDisks;

  beforeAll(async () => {
    world = await openWindowsWorld();
    const script = join(import.meta.dirname, 'linux-scratch.ts');
    const { stdout, stderr } = await runWindowsProcess(world, { script });
    expect(stderr).toBe('');
    disks = JSON.parse(stdout) as LinuxDisks;
  }, 240_000);
  afterAll(() => world?.close());

  const here = (path: string) => join(world.drive, path.slice(3).replaceAll('\\', '/'));
  const run = (file: string, ...args: string[]) =>
    execFileSync(file, args, { encoding: 'utf8', stdio: 'pipe' });
  /** What each command line said, and what it said to standard error together. */
  const vhd = async (...commands: string[][]) => {
    const script = join(import.meta.dirname, 'vhd-commands.ts');
    const { stdout, stderr } = await runWindowsProcess(world, { script, input: JSON.stringify(commands) });
    return { said: stdout.split(/(?<=^exit \d+\n)/m), stderr };
  };

  it.runIf(canCheck)('are, for qemu and e2fsck, sound disks with an empty ext4 file system', () => {
    for (const [name, size] of [
      ['usual', 20 * 2 ** 30],
      ['small', 64 * MIB],
      ['elsewhere', 20 * 2 ** 30],
      ['bare', 64 * MIB + 512],
    ] as const) {
      const file = here(disks[name]);
      const { format, 'virtual-size': bytes } = JSON.parse(run('qemu-img', 'info', '--output=json', file));
      expect([name, format, bytes]).toEqual([name, 'vhdx', size]);
      expect(run('qemu-img', 'check', file)).toContain('No errors');
    }
    const raw = join(world.drive, 'raw');
    run('qemu-img', 'convert', '-O', 'raw', here(disks.small), raw);
    expect(run('e2fsck', '-fn', raw)).toMatch(/: 11\/\d+ files/);
  });

  it('are never looked for among the disks of the host', async () => {
    expect((await world.calls()).map(({ call }) => call)).not.toContain('GetLayerMountPath');
  });

  it('may be read by every VM, a layer at least', async () => {
    const granted = (await world.calls()).filter(({ call }) => call === 'HcsGrantVmGroupAccess');
    expect(granted.map(({ args }) => args.file)).toEqual([
      expect.stringMatching(/\\layer\.vhd$/),
      expect.stringMatching(/\\layer\.vhd$/),
    ]);
    const attached = (await world.calls()).filter(({ call }) => call === 'GrantVmAccess');
    expect(attached.map(({ args }) => args.file)).toContain(disks.usual);
  });

  it.runIf(canCheck)('become layers: what a guest wrote over overlayfs, as OCI has it', async () => {
    const [raw, script] = [join(world.drive, 'guest.raw'), join(world.drive, 'guest.debugfs')];
    const upper = `scratch/${snapshotGuid('small')}/upper`;
    writeFileSync(join(world.drive, 'content'), 'written by a guest\n');
    const commands = [
      ...['scratch', dirname(upper), `${dirname(upper)}/work`, upper, `${upper}/etc`, `${upper}/opt`].map(
        (path) => `mkdir ${path}`,
      ),
      `cd ${upper}`,
      `write ${join(world.drive, 'content')} new`,
      'ln new again',
      'set_inode_field new links_count 2',
      'set_inode_field new uid 1000',
      'ea_set new user.note kept',
      'ea_set new trusted.overlay.origin of-overlayfs',
      'ea_set opt trusted.overlay.opaque y',
      'cd etc',
      'mknod os-release c 0 0',
    ];
    writeFileSync(script, commands.join('\n'));
    run('qemu-img', 'convert', '-O', 'raw', here(disks.small), raw);
    run('debugfs', '-w', '-f', script, raw);
    run('qemu-img', 'convert', '-O', 'vhdx', '-o', 'subformat=dynamic', raw, here(disks.small));

    // That which had no file system was given one by its guest.
    const formatted = join(world.drive, 'formatted.raw');
    mkdirSync(join(world.drive, `guest/scratch/${snapshotGuid('bare')}/upper/formatted`), {
      recursive: true,
    });
    run('mke2fs', '-q', '-t', 'ext4', '-d', join(world.drive, 'guest'), formatted, '64M');
    run(
      'qemu-img',
      'convert',
      '-O',
      'vhdx',
      '-o',
      'subformat=dynamic',
      formatted,
      join(world.drive, 'formatted'),
    );

    const commit = join(import.meta.dirname, 'linux-commit.ts');
    const { stdout, stderr } = await runWindowsProcess(world, { script: commit });
    expect({ stdout, stderr }).toEqual({ stdout: 'done\n', stderr: '' });
    const listed = run('tar', '--numeric-owner', '-tvf', join(world.drive, 'blobs/committed.tar'))
      .trimEnd()
      .split('\n');
    expect(listed.map((line) => line.replace(/ +\d+ \d{4}-\d\d-\d\d \d\d:\d\d /, ' '))).toEqual([
      'drwxr-xr-x 0/0 ./',
      '-rw-r--r-- 1000/0 again',
      'drwxr-xr-x 0/0 etc/',
      'h--------- 0/0 new link to again',
      'drwxr-xr-x 0/0 opt/',
      '---------- 0/0 opt/.wh..wh..opq',
      '---------- 0/0 etc/.wh.os-release',
    ]);
    const records = readFileSync(join(world.drive, 'blobs/committed.tar'), 'latin1');
    expect(records).toContain('SCHILY.xattr.user.note=kept');
    expect(records).not.toContain('trusted.overlay');
  });

  it.runIf(canCheck)(
    "are looked into by cimlet vhd, as are somebody else's: mke2fs's in a VHD and in a VHDX",
    async () => {
      const [tree, raw] = [join(world.drive, 'tree'), join(world.drive, 'foreign.raw')];
      const image = (name: string) => join(world.drive, name);
      run('mkdir', '-p', join(tree, 'scratch/upper/etc'));
      writeFileSync(join(tree, 'scratch/upper/etc/motd'), 'written by a guest\n');
      run('mke2fs', '-q', '-t', 'ext4', '-d', tree, raw, '32M');
      run('qemu-img', 'convert', '-O', 'vhdx', '-o', 'subformat=dynamic', raw, image('foreign.vhdx'));
      run('qemu-img', 'convert', '-O', 'vpc', '-o', 'subformat=fixed,force_size', raw, image('foreign.vhd'));
      run('cp', image('foreign.vhd'), image('damaged.vhd'));
      run('truncate', '-s', '1M', image('damaged.vhd'));
      const { said, stderr } = await vhd(
        ['ls', '-R', disks.layer],
        ['cat', disks.layer, 'etc/alias'],
        ['ls', disks.usual],
        ['cat', 'C:\\foreign.vhdx', 'scratch/upper/etc/motd'],
        ['cat', 'C:\\foreign.vhd', 'scratch/upper/etc/motd'],
        ['verify', disks.layer],
        ['verify', 'C:\\damaged.vhd'],
      );
      expect(said.slice(0, 5)).toEqual([
        'etc/\nlost+found/\netc/alias\netc/os-release\nexit 0\n',
        'ID=tux\nexit 0\n',
        'lost+found/\nexit 0\n',
        'written by a guest\nexit 0\n',
        'written by a guest\nexit 0\n',
      ]);
      expect(said[5]).toContain('exit 0');
      expect(said[6]).not.toContain('exit 0');
      expect(said[6] + stderr).toContain('C:\\damaged.vhd');
    },
  );
});
