/** A real Debian root file system as a chain of Linux layers: the mount is what umoci itself unpacks. */

import { execFileSync, spawnSync } from 'node:child_process';
import {
  chownSync,
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { canMount, describeTree } from '../ext4/images.ts';
import { MAIN } from '../support/program.ts';
import { hasTool, requireOrSkip } from '../support/requirements.ts';
import { World } from './world.ts';

const hasUmoci = requireOrSkip('umoci', hasTool('umoci') && hasTool('setfattr'));
const hasUnshare = requireOrSkip('unshare', hasTool('unshare'));
/** Their files, with the links, modes and owners that Debian gives them. */
const PACKAGES = ['base-files', 'base-passwd', 'bash', 'coreutils', 'libc6', 'passwd', 'tar'];

function run(command: string, args: string[], cwd: string): void {
  execFileSync(command, args, { cwd, stdio: ['ignore', 'ignore', 'pipe'] });
}

/** Three layers, and umoci's unpacking of them. */
function buildDebian(directory: string): { unpacked: string } {
  const image = 'layout:v1';
  const rootfs = join(directory, 'bundle/rootfs');
  run('umoci', ['init', '--layout', 'layout'], directory);
  run('umoci', ['new', '--image', image], directory);
  run('umoci', ['unpack', '--image', image, 'bundle'], directory);

  const listed = execFileSync('dpkg-query', ['-L', ...PACKAGES], { encoding: 'utf8' }).split('\n');
  // Some are listed by a way through links (/lib64), of which the archive must have the end.
  const real = (name: string) => join(realpathSync(dirname(name)), basename(name));
  const names = listed.filter((name) => name.startsWith('/') && name !== '/.' && existsSync(name)).map(real);
  const unique = [...new Set(['/lib64', '/lib', '/bin', '/sbin', ...names])].filter((name) =>
    existsSync(name),
  );
  const list = join(directory, 'names');
  writeFileSync(list, unique.map((name) => `.${name}\0`).join(''));
  const archive = join(directory, 'system.tar');
  run('tar', ['-C', '/', '--no-recursion', '--null', '-T', list, '-cf', archive], directory);
  run('tar', ['-C', rootfs, '-xpf', archive], directory);
  run('umoci', ['repack', '--refresh-bundle', '--image', image, 'bundle'], directory);

  mkdirSync(join(rootfs, 'srv/app/data'), { recursive: true });
  writeFileSync(join(rootfs, 'srv/app/data/file'), 'second layer');
  linkSync(join(rootfs, 'srv/app/data/file'), join(rootfs, 'srv/app/second-name'));
  symlinkSync('data/file', join(rootfs, 'srv/app/link'));
  writeFileSync(join(rootfs, 'srv/app/sparse'), 'start');
  truncateSync(join(rootfs, 'srv/app/sparse'), 5_000_000);
  chownSync(join(rootfs, 'srv/app/data'), 1234, 70_000);
  run('mknod', ['srv/app/null', 'c', '1', '3'], rootfs);
  run('mkfifo', ['srv/app/pipe'], rootfs);
  run('setfattr', ['-n', 'user.note', '-v', 'kept', 'srv/app/data/file'], rootfs);
  run('chmod', ['4755', 'srv/app/sparse'], rootfs);
  rmSync(join(rootfs, 'usr/share/doc'), { recursive: true });
  rmSync(join(rootfs, 'etc/debian_version'));
  run('umoci', ['repack', '--refresh-bundle', '--image', image, 'bundle'], directory);

  rmSync(join(rootfs, 'srv/app/data'), { recursive: true });
  mkdirSync(join(rootfs, 'srv/app/data'));
  writeFileSync(join(rootfs, 'srv/app/data/new'), 'third layer');
  rmSync(join(rootfs, 'srv/app/link'));
  mkdirSync(join(rootfs, 'srv/app/link'));
  run('umoci', ['repack', '--image', image, 'bundle'], directory);
  run('umoci', ['config', '--image', image, '--os', 'linux', '--architecture', 'amd64'], directory);
  run('umoci', ['raw', 'unpack', '--image', image, 'unpacked'], directory);
  return { unpacked: join(directory, 'unpacked') };
}

const manifests = (path: string, more = '', layers = '') => `apiVersion: cimlet.dev/v1alpha1
kind: Image
metadata: {name: debian}
spec: {source: {ociLayout: "../layout:v1"}, platform: {os: linux, architecture: amd64}}
---
apiVersion: cimlet.dev/v1alpha1
kind: LayerChain
metadata: {name: debian}
spec: {layers: [{image: debian}${layers}]${more}}
---
apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: {name: debian}
spec: {chain: debian, path: "${path}"}
`;

describe.runIf(hasUmoci && canMount)('a Linux image', () => {
  it('is mounted as umoci unpacks it, verified, repaired, and gone without a trace', async () => {
    const world = new World();
    const { unpacked } = buildDebian(world.directory);
    world.write('manifests/app.yaml', manifests(world.mountPoint, ', integrity: Verified'));
    const cimlet = (...args: string[]) => world.run([...args, '-f', world.manifest]);
    const planned = await cimlet('plan');
    expect(planned.stdout).toContain('LCOW');
    await cimlet('apply', '--yes');

    const expected = describeTree(unpacked);
    const shown = describeTree(world.mountPoint);
    // No layer says when the root itself was changed.
    for (const tree of [expected, shown]) tree.delete('');
    expect([...shown.keys()].sort()).toEqual([...expected.keys()].sort());
    for (const [path, entry] of expected) expect([path, shown.get(path)]).toEqual([path, entry]);
    expect(() => writeFileSync(join(world.mountPoint, 'x'), '')).toThrow(/read-only/);
    await world.run(['plan', '-f', world.manifest, '--detailed-exitcode']);
    const { layers, leftovers } = await world.observe();
    expect(layers).toHaveLength(3);
    for (const layer of layers)
      expect(layer).toMatchObject({
        format: 'LCOW',
        vhdFooter: true,
        rootHash: expect.stringMatching(/^sha256:/),
      });
    expect(leftovers).toEqual([]);

    // Exported and applied again, it is the same.
    await world.run(['image', 'export', 'chain/debian', '-o', world.path('exported')]);
    const again = new World();
    again.write(
      'manifests/app.yaml',
      manifests(again.mountPoint).replace('../layout:v1', world.path('exported')),
    );
    await again.run(['apply', '-f', again.manifest, '--yes']);
    const copied = describeTree(again.mountPoint);
    copied.delete('');
    expect([...copied.keys()].sort()).toEqual([...expected.keys()].sort());
    for (const [path, entry] of expected) expect([path, copied.get(path)]).toEqual([path, entry]);

    // Damage below a mount is found by dm-verity's tree, and built anew.
    const [folder = ''] = readdirSync(join(world.root, 'snapshots'));
    const disk = join(world.root, 'snapshots', folder, 'layer.vhd');
    const bytes = readFileSync(disk);
    bytes[bytes.length >> 2] = (bytes[bytes.length >> 2] ?? 0) ^ 1;
    writeFileSync(disk, bytes);
    expect((await world.run(['plan', '-f', world.manifest, '--detailed-exitcode'], 2)).stdout).toContain(
      'layer.vhd',
    );
    await cimlet('apply', '--yes');
    await world.run(['plan', '-f', world.manifest, '--detailed-exitcode']);
    expect(readFileSync(join(world.mountPoint, 'srv/app/data/new'), 'utf8')).toBe('third layer');

    await world.run(['delete', '-f', world.manifest, '--yes']);
    expect(await world.observe()).toMatchObject({ layers: [], mounts: [], leftovers: [] });
    expect(existsSync(world.mountPoint)).toBe(false);
  });

  /** An image of one small layer, whose Mount can be written to. */
  function writableMount(scratch: string): World {
    const world = new World();
    const layout = world.directory;
    run('umoci', ['init', '--layout', 'layout'], layout);
    run('umoci', ['new', '--image', 'layout:v1'], layout);
    mkdirSync(world.path('tree/etc'), { recursive: true });
    writeFileSync(world.path('tree/etc/motd'), 'hello');
    cpSync('/etc/passwd', world.path('tree/etc/passwd'));
    run('umoci', ['insert', '--image', 'layout:v1', 'tree', '/'], layout);
    run('umoci', ['config', '--image', 'layout:v1', '--os', 'linux', '--architecture', 'amd64'], layout);
    const access = `chain: debian, access: ReadWrite${scratch},`;
    world.write('manifests/app.yaml', manifests(world.mountPoint).replace('chain: debian,', access));
    return world;
  }

  it('can be written to, and keeps what was written', async () => {
    const world = writableMount('');
    await world.run(['apply', '-f', world.manifest, '--yes']);
    writeFileSync(join(world.mountPoint, 'etc/motd'), 'changed');
    rmSync(join(world.mountPoint, 'etc/passwd'));
    run('umount', [world.mountPoint], world.directory);
    await world.run(['apply', '-f', world.manifest, '--yes']);
    expect(readFileSync(join(world.mountPoint, 'etc/motd'), 'utf8')).toBe('changed');
    expect(readdirSync(join(world.mountPoint, 'etc'))).toEqual(['motd']);
    await world.run(['delete', '-f', world.manifest, '--yes']);
    expect(await world.observe()).toMatchObject({ layers: [], mounts: [], snapshots: [], leftovers: [] });
  });

  it('is written out as a layer, which gives the same files elsewhere', async () => {
    const world = writableMount('');
    await world.run(['apply', '-f', world.manifest, '--yes']);
    const { mountPoint } = world;
    rmSync(join(mountPoint, 'etc/passwd'));
    mkdirSync(join(mountPoint, 'srv'), { mode: 0o711 });
    writeFileSync(join(mountPoint, 'srv/file'), 'written', { mode: 0o640 });
    linkSync(join(mountPoint, 'srv/file'), join(mountPoint, 'srv/second-name'));
    symlinkSync('file', join(mountPoint, 'srv/link'));
    chownSync(join(mountPoint, 'srv/file'), 1234, 70_000);
    run('setfattr', ['-n', 'user.note', '-v', 'kept', 'srv/file'], mountPoint);
    run('mkfifo', ['srv/pipe'], mountPoint);
    const tar = world.path('changes.tar');
    await world.run(['layer', 'diff', 'mount/debian', '-o', tar]);

    const other = new World();
    other.write(
      'manifests/app.yaml',
      manifests(other.mountPoint, '', `, {archive: "${tar}"}`).replace(
        '../layout:v1',
        world.path('layout:v1'),
      ),
    );
    await other.run(['apply', '-f', other.manifest, '--yes']);
    const [written, applied] = [describeTree(mountPoint), describeTree(other.mountPoint)];
    for (const tree of [written, applied]) tree.delete('');
    expect([...applied]).toEqual([...written]);
  });

  it.runIf(hasUnshare)(
    'needs a loop device for each layer, and leaves none behind when there are too few',
    async () => {
      const world = writableMount('');
      for (const name of ['second', 'third']) {
        mkdirSync(world.path(name));
        writeFileSync(world.path(name, name), name);
        run('umoci', ['insert', '--image', 'layout:v1', name, `/${name}`], world.directory);
      }
      const args = ['apply', '-f', world.manifest, '--root', world.root, '--yes'];
      // A /dev as containers have it, with one device that nobody uses.
      const dev = `free=$(losetup -f); mount -t tmpfs none /dev; mknod /dev/loop-control c 10 237; mknod /dev/null c 1 3; mknod $free b 7 \${free#/dev/loop}`;
      const refused = spawnSync(
        'unshare',
        ['-m', 'sh', '-c', `${dev}; exec "$@"`, 'sh', process.execPath, MAIN, ...args],
        {
          encoding: 'utf8',
        },
      );
      expect([refused.status, refused.stderr + refused.stdout]).toEqual([
        1,
        expect.stringContaining('all loop devices are in use'),
      ]);
      const backed = execFileSync('losetup', ['-a'], { encoding: 'utf8' });
      expect(backed).not.toContain(world.root);
      expect(await world.observe()).toMatchObject({ mounts: [], leftovers: [] });
      await world.run(['apply', '-f', world.manifest, '--yes']);
      expect(readFileSync(join(world.mountPoint, 'third/third'), 'utf8')).toBe('third');
    },
  );

  it('has a limit to what is written, and keeps it where it is told', async () => {
    const elsewhere = new World().path('elsewhere');
    mkdirSync(elsewhere);
    const world = writableMount(`, scratch: {size: 16Mi, location: "${elsewhere}"}`);
    await world.run(['apply', '-f', world.manifest, '--yes']);
    const large = join(world.mountPoint, 'etc/large');
    expect(() => writeFileSync(large, Buffer.alloc(2 ** 25, 'x'))).toThrow(/ENOSPC/);
    rmSync(large);
    writeFileSync(join(world.mountPoint, 'etc/motd'), 'changed');
    expect(readdirSync(elsewhere)).toHaveLength(1);
    run('umount', [world.mountPoint], world.directory);
    await world.run(['apply', '-f', world.manifest, '--yes']);
    expect(readFileSync(join(world.mountPoint, 'etc/motd'), 'utf8')).toBe('changed');
    expect(readdirSync(join(world.mountPoint, 'etc'))).toEqual(['motd', 'passwd']);
    await world.run(['delete', '-f', world.manifest, '--yes']);
    expect(readdirSync(elsewhere)).toEqual([]);
    expect(await world.observe()).toMatchObject({ layers: [], mounts: [], snapshots: [], leftovers: [] });
  });
});
