import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createEmbeddedHost } from '../../../src/hosts/embedded/embedded-host.ts';
import type { Host, MountRequest, SnapshotRequest, UnpackRequest } from '../../../src/hosts/host.ts';
import { mountVolumeGuid, snapshotGuid } from '../../../src/hosts/identity.ts';
import { getXattr, setXattr } from '../../../src/native/linux/xattr.ts';
import { layerItems } from '../../support/host-layers.ts';
import { mountsBelow } from '../../support/mounts.ts';
import { COMPILE_CACHE } from '../../support/program.ts';
import { hasTool, requireOrSkip } from '../../support/requirements.ts';
import { build, context, makeStack, openBench } from './fixture.ts';
import { takeThroughLife } from './snapshot-life.ts';

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const writable = requireOrSkip('overlayfs over kernel views', capabilities.active.available);
const hasE2fsck = requireOrSkip('e2fsck', hasTool('e2fsck'));
const CHILD = join(import.meta.dirname, 'snapshot-crash-child.ts');

const BASE = layerItems({ 'a.txt': 'a', 'dir/b.txt': 'b', README: 'read' });

interface Prepared {
  directory: string;
  root: string;
  host: Host;
  requests: [UnpackRequest, ...UnpackRequest[]];
  snapshot: SnapshotRequest;
  mount: MountRequest;
}

async function prepare(scratch?: SnapshotRequest['scratch']): Promise<Prepared> {
  const bench = await openBench();
  const requests = await makeStack(join(bench.directory, 'blobs'), BASE);
  await build(bench.host, requests);
  const chain = requests.map(({ chainId }) => chainId);
  const snapshot: SnapshotRequest = { key: 'work', kind: 'active', chain, format: 'ForkedCIM', scratch };
  const mount: MountRequest = {
    volumeGuid: mountVolumeGuid('work'),
    path: join(bench.directory, 'mounted'),
    chain,
    format: 'ForkedCIM',
    access: 'ReadWrite',
    view: 'Kernel',
    snapshot: 'work',
  };
  return { ...bench, requests, snapshot, mount };
}

/** Writes through a mount, and commits. Returns what shows the new layer. */
async function commitWith(prepared: Prepared, change: (root: string) => void): Promise<MountRequest> {
  const { host, snapshot, mount } = prepared;
  await host.prepareSnapshot(snapshot, context);
  await host.mount(mount, context);
  change(mount.path);
  await host.dismount(mount.volumeGuid, context);
  const { chainId } = await host.commitSnapshot('work', {}, context);
  const { snapshot: _, ...view } = mount;
  return { ...view, chain: [...mount.chain, chainId], access: 'ReadOnly' };
}

function loopsOf(directory: string): string[] {
  const all = execFileSync('losetup', ['-a'], { encoding: 'utf8' }).split('\n');
  return all.filter((line) => line.includes(directory));
}

describe.runIf(writable)('a process killed at any step of a snapshot', () => {
  it.each<[string, SnapshotRequest['scratch']]>([
    ['in a directory', undefined],
    ['in an image', { bytes: 16 * 2 ** 20 }],
  ])('is finished by the next one, with nothing left (%s)', async (_, scratch) => {
    const prepared = await prepare(scratch);
    const { directory, root, snapshot, mount } = prepared;
    const second = { ...snapshot, key: 'second', scratch: { shareWith: 'work' } };
    const work = join(directory, 'work.json');
    writeFileSync(work, JSON.stringify({ snapshot, second, mount }));
    const run = (place: string, step: number) =>
      spawnSync(
        process.execPath,
        ['--disable-warning=ExperimentalWarning', CHILD, place, work, String(step)],
        { encoding: 'utf8', env: { ...process.env, NODE_COMPILE_CACHE: COMPILE_CACHE } },
      );
    execFileSync('cp', ['-a', root, `${root}-clean`]);
    const { steps, naming } = JSON.parse(run(`${root}-clean`, 0).stdout) as {
      steps: number;
      naming: number[];
    };
    expect([steps > 20, naming.length > 2]).toEqual([true, true]);
    const sixth = Math.ceil(steps / 6);
    const sampled = Array.from({ length: 6 }, (_, index) => 1 + index * sixth).filter(
      (step) => step <= steps,
    );
    // Some of a layer's files have their names then, and others not.
    for (const step of new Set([...sampled, naming[1] ?? 0])) {
      const place = `${root}-${step}`;
      execFileSync('cp', ['-a', root, place]);
      expect(run(place, step).signal).toBe('SIGKILL');
      const host = createEmbeddedHost({ root: place });
      await host.cleanLeftovers(context);
      expect((await host.observe(context)).leftovers).toEqual([]);
      const chainId = await takeThroughLife(host, { snapshot, second, mount });
      const state = await host.observe(context);
      expect([state.snapshots, state.mounts, state.leftovers]).toEqual([[], [], []]);
      expect(state.layers.map((layer) => layer.chainId)).toContain(chainId);
      expect([mountsBelow(place), loopsOf(place)]).toEqual([[], []]);
      expect(readdirSync(join(place, 'snapshots')).filter((name) => !/^[0-9a-f]{64}$/.test(name))).toEqual(
        [],
      );
    }
  });
});

describe.runIf(writable)('a commit of an earlier version that was killed', () => {
  it('left the tar that the layer was to be made of, which is told, and cleaned away', async () => {
    const { host, root, snapshot } = await prepare();
    await host.prepareSnapshot(snapshot, context);
    const tars = ['diff.tar', 'diff.tar.part'].map((name) =>
      join(root, 'snapshots', snapshotGuid('work'), name),
    );
    for (const tar of tars) writeFileSync(tar, 'a tar');
    const { leftovers } = await host.observe(context);
    expect(leftovers.map(({ path, bytes }) => ({ path, bytes }))).toEqual(
      tars.map((path) => ({ path, bytes: 5 })),
    );
    await host.cleanLeftovers(context);
    const state = await host.observe(context);
    expect([tars.filter(existsSync), state.leftovers, state.snapshots.length]).toEqual([[], [], 1]);
  });
});

describe.runIf(writable)('a scratch', () => {
  it.each<[string, SnapshotRequest['scratch']]>([
    ['a directory', undefined],
    ['an image', { bytes: 16 * 2 ** 20 }],
  ])('that two share says what each wrote, as du does (%s)', async (_, scratch) => {
    const { host, directory, snapshot, mount } = await prepare(scratch);
    const second = { ...snapshot, key: 'second', scratch: { shareWith: 'work' } };
    const other = {
      ...mount,
      volumeGuid: mountVolumeGuid('second'),
      path: `${mount.path}-2`,
      snapshot: 'second',
    };
    for (const request of [snapshot, second]) await host.prepareSnapshot(request, context);
    for (const request of [mount, other]) await host.mount(request, context);
    mkdirSync(join(mount.path, 'new'));
    writeFileSync(join(mount.path, 'new', 'large'), Buffer.alloc(3_000_000, 1));
    linkSync(join(mount.path, 'new', 'large'), join(mount.path, 'same'));
    rmSync(join(mount.path, 'a.txt'));
    writeFileSync(join(other.path, 'small'), 'small');
    execFileSync('sync');
    const usage = async () => Promise.all(['work', 'second'].map((key) => host.snapshotUsage(key, context)));
    const whileMounted = await usage();
    for (const { volumeGuid } of [mount, other]) await host.dismount(volumeGuid, context);
    const counted = [snapshot, second].map(({ key }) => {
      const folder = join(directory, 'root', 'snapshots', snapshotGuid('work'));
      const place = join(folder, 'scratch');
      if (scratch !== undefined)
        execFileSync('mount', ['-o', 'loop,ro', join(folder, 'scratch.ext4'), place]);
      const upper = join(place, snapshotGuid(key), 'fs');
      const du = (...options: string[]) =>
        Number.parseInt(execFileSync('du', ['-s', ...options, upper], { encoding: 'utf8' }), 10);
      const [bytes, files] = [du('-B1'), du('--inodes')];
      const itself = lstatSync(upper).blocks * 512;
      if (scratch !== undefined) execFileSync('umount', [place]);
      return { bytes: bytes - itself, files: files - 1 };
    });
    expect(whileMounted).toEqual(counted);
    expect(await usage()).toEqual(counted);
    expect(counted.map(({ files }) => files)).toEqual([3, 1]);
    expect([mountsBelow(directory), loopsOf(directory)]).toEqual([[], []]);
    await expect(host.snapshotUsage('nobody', context)).rejects.toMatchObject({ code: 'not-found' });
  });

  it.runIf(hasE2fsck)('of limited size is a clean file system afterwards', async () => {
    const { host, root, snapshot, mount } = await prepare({ bytes: 16 * 2 ** 20 });
    await host.prepareSnapshot(snapshot, context);
    await host.mount(mount, context);
    expect(() => writeFileSync(join(mount.path, 'large'), Buffer.alloc(2 ** 24))).toThrow(/ENOSPC/);
    rmSync(join(mount.path, 'large'));
    writeFileSync(join(mount.path, 'a.txt'), 'changed');
    await host.dismount(mount.volumeGuid, context);
    const [folder = ''] = readdirSync(join(root, 'snapshots')).filter((name) => name.length === 36);
    execFileSync('e2fsck', ['-fn', join(root, 'snapshots', folder, 'scratch.ext4')], { stdio: 'pipe' });
    expect((await host.observe(context)).snapshots[0]?.bytes).toBeLessThanOrEqual(17 * 2 ** 20);
  });

  it.each<[string, SnapshotRequest['scratch'], string]>([
    ['too small', { bytes: 4096 }, 'invalid-manifest'],
    ['without a file system', { unformatted: true }, 'unsupported-host'],
    ['with a disk for a utility VM', { utilityVM: true }, 'unsupported-host'],
    ['where there is no directory', { location: '/nowhere/at/all' }, 'not-found'],
  ])('that cannot be is refused, and leaves nothing: %s', async (_, scratch, code) => {
    const { host, root, snapshot } = await prepare(scratch);
    await expect(host.prepareSnapshot(snapshot, context)).rejects.toMatchObject({ code });
    expect(readdirSync(join(root, 'snapshots')).filter((name) => name.includes('-'))).toEqual([]);
    expect((await host.observe(context)).leftovers).toEqual([]);
  });

  it('elsewhere is its own, and outlives a record that was lost', async () => {
    const { directory, host, root, requests, snapshot } = await prepare();
    const location = join(directory, 'disk');
    mkdirSync(location);
    const located = { ...snapshot, scratch: { location } };
    await host.prepareSnapshot(located, context);
    const [first = ''] = readdirSync(location);
    writeFileSync(join(location, first, 'written'), 'w');
    const other = createEmbeddedHost({ root: `${root}-other` });
    await build(other, requests);
    await other.prepareSnapshot(located, context);
    expect(readdirSync(location)).toHaveLength(2);
    await other.removeSnapshot('work', context);
    const [folder = ''] = readdirSync(join(root, 'snapshots')).filter((name) => name.length === 36);
    rmSync(join(root, 'snapshots', folder), { recursive: true });
    await expect(host.prepareSnapshot(located, context)).rejects.toMatchObject({
      code: 'already-exists',
      message: expect.stringContaining(join(location, first)),
    });
    expect(readFileSync(join(location, first, 'written'), 'utf8')).toBe('w');
    expect((await host.observe(context)).leftovers).toEqual([]);
  });

  it.each<[string, SnapshotRequest['scratch'], string]>([
    ['a directory', undefined, 'torn'],
    ['an image', { bytes: 16 * 2 ** 20 }, '{"formatVersion":2}'],
  ])('whose record cannot be read is kept: %s', async (_, scratch, record) => {
    const { host, root, snapshot } = await prepare(scratch);
    await host.prepareSnapshot(snapshot, context);
    const [name = ''] = readdirSync(join(root, 'snapshots')).filter((each) => each.length === 36);
    const folder = join(root, 'snapshots', name);
    writeFileSync(join(folder, 'snapshot.json'), record);
    if (scratch !== undefined) rmSync(join(folder, 'scratch'), { recursive: true });
    const kept = readdirSync(folder);
    expect(await host.cleanLeftovers(context)).toEqual([]);
    await expect(host.prepareSnapshot(snapshot, context)).rejects.toMatchObject({
      code: 'failed-precondition',
      message: expect.stringContaining(folder),
    });
    expect(readdirSync(folder)).toEqual(kept);
    await host.removeSnapshot('work', context);
    await host.prepareSnapshot(snapshot, context);
  });

  it('of another that is lost does not keep what shared it', async () => {
    const { host, root, snapshot } = await prepare();
    await host.prepareSnapshot(snapshot, context);
    const [owner = ''] = readdirSync(join(root, 'snapshots')).filter((name) => name.length === 36);
    await host.prepareSnapshot({ ...snapshot, key: 'second', scratch: { shareWith: 'work' } }, context);
    rmSync(join(root, 'snapshots', owner), { recursive: true });
    await host.removeSnapshot('second', context);
    expect((await host.observe(context)).snapshots).toEqual([]);
  });

  it('that is gone is a fault, and is not made again over what was lost', async () => {
    const { host, root, snapshot, mount } = await prepare();
    await host.prepareSnapshot(snapshot, context);
    const [folder = ''] = readdirSync(join(root, 'snapshots')).filter((name) => name.length === 36);
    rmSync(join(root, 'snapshots', folder, 'scratch'), { recursive: true });
    expect((await host.observe(context)).snapshots[0]?.fault).toMatch(/scratch is gone/);
    await expect(host.mount(mount, context)).rejects.toMatchObject({ code: 'failed-precondition' });
    expect((await host.observe(context)).leftovers).toEqual([]);
    await host.removeSnapshot('work', context);
  });
});

describe.runIf(writable)('what is committed', () => {
  it('keeps what the view shows of a file besides POSIX, and read-only files', async () => {
    const prepared = await prepare();
    const { host } = prepared;
    const attributes = (path: string) => Buffer.from(getXattr(path, 'user.cim.attributes') ?? []).toString();
    const view = await commitWith(prepared, (root) => {
      setXattr(join(root, 'a.txt'), 'user.cim.attributes', Buffer.from('0x22'));
      setXattr(join(root, 'a.txt'), 'user.cim.stream.note', Buffer.from('a stream'));
      writeFileSync(join(root, 'read-only'), '');
      chmodSync(join(root, 'read-only'), 0o444);
      linkSync(join(root, 'a.txt'), join(root, 'hard'));
      symlinkSync('dir/b.txt', join(root, 'relative'));
      symlinkSync('/dir', join(root, 'absolute'));
      renameSync(join(root, 'README'), join(root, 'readme'));
    });
    await host.mount(view, context);
    const at = (name: string) => join(view.path, name);
    expect(attributes(at('a.txt'))).toBe('0x22');
    expect(Buffer.from(getXattr(at('a.txt'), 'user.cim.stream.note') ?? []).toString()).toBe('a stream');
    expect(lstatSync(at('read-only')).mode & 0o222).toBe(0);
    expect(lstatSync(at('hard')).ino).toBe(lstatSync(at('a.txt')).ino);
    expect(readFileSync(at('relative'), 'utf8')).toBe('b');
    expect(readdirSync(view.path).sort()).toEqual(
      ['a.txt', 'absolute', 'dir', 'hard', 'read-only', 'readme', 'relative'].sort(),
    );
    await host.dismount(view.volumeGuid, context);
  });

  it.each<[string, (root: string) => void, RegExp]>([
    [
      'two names that differ in case',
      (root) => {
        writeFileSync(join(root, 'Same'), '');
        writeFileSync(join(root, 'same'), '');
      },
      /"Same" too, and case makes no difference/,
    ],
    ['a name that a layer has in another case', (root) => writeFileSync(join(root, 'A.TXT'), ''), /"a\.txt"/],
    ['a device', (root) => void execFileSync('mknod', [join(root, 'dev'), 'c', '1', '3']), /it is a device/],
    ['a pipe', (root) => void execFileSync('mkfifo', [join(root, 'pipe')]), /named pipe/],
    [
      'a name that is not UTF-8',
      (root) => writeFileSync(Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0xff, 0x41])]), ''),
      /not UTF-8/,
    ],
    [
      'a name that would be an alternate stream',
      (root) => {
        writeFileSync(join(root, 'a'), '');
        writeFileSync(join(root, 'a:b'), '');
      },
      /a:b to a Windows layer: Windows allows no ":" in names/,
    ],
  ])('cannot be %s: nothing is lost', async (_, change, message) => {
    const prepared = await prepare();
    const { host } = prepared;
    await expect(commitWith(prepared, change)).rejects.toThrow(message);
    const state = await host.observe(context);
    expect([state.snapshots.length, state.layers.length, state.leftovers]).toEqual([1, 1, []]);
    await host.removeSnapshot('work', context);
  });

  it('leaves out sockets and attributes that Windows has no place for, and says so', async () => {
    const { host, snapshot, mount, directory } = await prepare();
    await host.prepareSnapshot(snapshot, context);
    await host.mount(mount, context);
    setXattr(join(mount.path, 'a.txt'), 'user.other', Buffer.from('x'));
    mkdirSync(join(mount.path, 'new'));
    await host.dismount(mount.volumeGuid, context);
    const warnings: string[] = [];
    await host.exportSnapshot('work', join(directory, 'diff.tar'), {
      ...context,
      warn: (message) => warnings.push(message),
    });
    expect(warnings).toEqual(['1 extended attributes were left out: a Windows layer has no place for them']);
  });
});
