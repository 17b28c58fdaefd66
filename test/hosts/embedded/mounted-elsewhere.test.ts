/** Snapshots that somebody else has mounted, too, or is at work on: in this process' view of the mounts, and in others'. */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { createEmbeddedHost } from '../../../src/hosts/embedded/embedded-host.ts';
import type { Host, MountRequest, SnapshotMount, SnapshotRequest } from '../../../src/hosts/host.ts';
import { mountVolumeGuid, snapshotGuid } from '../../../src/hosts/identity.ts';
import { layerFolder } from '../../../src/hosts/layout.ts';
import { layerItems } from '../../support/host-layers.ts';
import { hasTool, requireOrSkip } from '../../support/requirements.ts';
import { build, context, makeStack, mountRequest, openBench } from './fixture.ts';

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const writable = requireOrSkip('overlayfs over kernel views', capabilities.active.available);
const hasTools = requireOrSkip('mount, unshare and flock', hasTool('unshare') && hasTool('flock'));
const SIZED = { bytes: 16 * 2 ** 20 };

interface Prepared {
  host: Host;
  directory: string;
  root: string;
  mount: MountRequest;
  snapshot: SnapshotRequest;
  elsewhere: string;
}

async function prepare(scratch?: SnapshotRequest['scratch']): Promise<Prepared> {
  const { host, directory, root } = await openBench();
  const snapshot: SnapshotRequest = { key: 'work', kind: 'active', chain: [], format: 'BlockCIM', scratch };
  await host.prepareSnapshot(snapshot, context);
  const mount: MountRequest = {
    volumeGuid: mountVolumeGuid('work'),
    path: join(directory, 'mounted'),
    chain: [],
    format: 'BlockCIM',
    access: 'ReadWrite',
    view: 'Kernel',
    snapshot: 'work',
  };
  const elsewhere = join(directory, 'elsewhere');
  mkdirSync(elsewhere);
  return { host, directory, root, mount, snapshot, elsewhere };
}

const run = (program: string, ...args: string[]) => execFileSync(program, args, { encoding: 'utf8' });

/** Nothing that would take the snapshot away or show it again goes on; afterwards all of it does. */
async function expectKept({ host, mount }: Prepared, where: string, letGo: () => void): Promise<void> {
  const refusal = { code: 'busy', message: expect.stringContaining(where) };
  await expect(host.removeSnapshot('work', context)).rejects.toMatchObject(refusal);
  await expect(host.commitSnapshot('work', {}, context)).rejects.toMatchObject(refusal);
  await expect(host.mount(mount, context)).rejects.toMatchObject(refusal);
  letGo();
  await host.mount(mount, context);
  await host.dismount(mount.volumeGuid, context);
  await host.commitSnapshot('work', {}, context);
}

/** Starts a program, and waits for its first line. */
async function start(program: string, ...args: string[]): Promise<ChildProcess> {
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  onTestFinished(async () => end(child));
  await once(child.stdout as NodeJS.ReadableStream, 'data');
  return child;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.stdin?.end();
  await ended;
}

describe.runIf(writable && hasTools)(
  'a snapshot is neither removed, committed nor mounted again while',
  () => {
    it.each([
      ['', undefined],
      [', of limited size', SIZED],
    ])('its writable mount is bound elsewhere%s', async (_, scratch) => {
      const prepared = await prepare(scratch);
      const { host, mount, elsewhere } = prepared;
      await host.mount(mount, context);
      run('mount', '--bind', mount.path, elsewhere);
      await host.dismount(mount.volumeGuid, context);
      writeFileSync(join(elsewhere, 'late'), 'written after all');
      await expectKept(prepared, elsewhere, () => run('umount', elsewhere));
    });

    it('its directory is bound elsewhere, or part of it', async () => {
      const prepared = await prepare();
      const { host, elsewhere } = prepared;
      const [bind] = (await host.snapshotMounts('work', context)) as [SnapshotMount];
      mkdirSync(join(bind.source, 'part'));
      run('mount', '--bind', join(bind.source, 'part'), elsewhere);
      await expectKept(prepared, elsewhere, () => run('umount', elsewhere));
    });

    it('its image is mounted by hand', async () => {
      const prepared = await prepare(SIZED);
      const { host, elsewhere } = prepared;
      const image = (await host.snapshotMounts('work', context)).find(({ type }) => type === 'ext4');
      run('mount', '-o', 'loop', image?.source ?? '', elsewhere);
      await expectKept(prepared, elsewhere, () => run('umount', elsewhere));
    });

    it('an overlay was made of it by hand', async () => {
      const prepared = await prepare();
      const { host, elsewhere } = prepared;
      const [{ source }] = (await host.snapshotMounts('work', context)) as [SnapshotMount];
      const options = `lowerdir=/sys,upperdir=${source},workdir=${join(source, '../work')}`;
      run('mount', '-t', 'overlay', 'by-hand', '-o', options, elsewhere);
      await expectKept(prepared, elsewhere, () => run('umount', elsewhere));
    });

    it('it is mounted in another mount namespace', async () => {
      const prepared = await prepare();
      const { host, mount } = prepared;
      // One that the host makes goes with its mount, and the kernel then takes the mount away everywhere.
      mkdirSync(mount.path);
      await host.mount(mount, context);
      const child = await start('unshare', '-m', '--propagation', 'private', 'sh', '-c', 'echo; exec cat');
      await host.dismount(mount.volumeGuid, context);
      const refused = host.removeSnapshot('work', context);
      await expect(refused).rejects.toMatchObject({
        code: 'busy',
        message: expect.stringContaining(`in the mount namespace of process ${child.pid}`),
      });
      await end(child);
      await host.removeSnapshot('work', context);
    });
    it.each<[string, SnapshotRequest['scratch'], (mounts: SnapshotMount[]) => string]>([
      ['its directory is', undefined, ([bind]) => `mount --bind "${bind?.source}"`],
      [
        'its image is',
        SIZED,
        (mounts) => `mount -o loop "${mounts.find(({ type }) => type === 'ext4')?.source}"`,
      ],
      [
        'an overlay by hand is',
        undefined,
        ([bind]) =>
          `mount -t overlay by-hand -o "lowerdir=/sys,upperdir=${bind?.source},workdir=${join(bind?.source ?? '', '../work')}"`,
      ],
    ])('%s mounted in another mount namespace only', async (_, scratch, mountBy) => {
      const { host, elsewhere } = await prepare(scratch);
      const command = `${mountBy(await host.snapshotMounts('work', context))} "${elsewhere}" && echo && exec cat`;
      const child = await start('unshare', '-m', '--propagation', 'private', 'sh', '-c', command);
      const where = `mounted at ${elsewhere} in the mount namespace of process ${child.pid}`;
      const refusal = { code: 'busy', message: expect.stringContaining(where) };
      await expect(host.removeSnapshot('work', context)).rejects.toMatchObject(refusal);
      await end(child);
      await host.removeSnapshot('work', context);
    });
  },
);

describe.runIf(writable && hasTools)('a writable view that is to be shown again', () => {
  /** Marks it as a run does that builds a layer below anew. */
  function makeStale({ root, mount }: Prepared): void {
    const file = join(root, 'mounts', `${mount.volumeGuid}.json`);
    writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), stale: true }));
  }

  it('stays while it is bound elsewhere', async () => {
    const prepared = await prepare();
    const { host, mount, elsewhere } = prepared;
    await host.mount(mount, context);
    writeFileSync(join(mount.path, 'file'), 'file');
    run('mount', '--bind', mount.path, elsewhere);
    const refusal = { code: 'busy', message: expect.stringContaining(elsewhere) };
    const again = { toShowAgain: true };
    await expect(host.dismount(mount.volumeGuid, context, again)).rejects.toMatchObject(refusal);
    makeStale(prepared);
    await expect(host.mount(mount, context)).rejects.toMatchObject(refusal);
    expect(readdirSync(mount.path)).toEqual(['file']);
    run('umount', elsewhere);
    await host.mount(mount, context);
    expect(readdirSync(mount.path)).toEqual(['file']);
    await host.dismount(mount.volumeGuid, context, again);
    await host.removeSnapshot('work', context);
  });

  it('is no obstacle itself, nor what slaves of its place got of it', async () => {
    const prepared = await prepare();
    const { host, directory, mount } = prepared;
    run('mount', '--bind', directory, directory);
    run('mount', '--make-shared', directory);
    const child = await start('unshare', '-m', '--propagation', 'slave', 'sh', '-c', 'echo; exec cat');
    await host.mount(mount, context);
    expect(readFileSync(`/proc/${child.pid}/mountinfo`, 'utf8')).toContain(mount.path);
    makeStale(prepared);
    await host.mount(mount, context);
    await host.dismount(mount.volumeGuid, context, { toShowAgain: true });
    await host.removeSnapshot('work', context);
  });
});

describe.runIf(writable && hasTools)('while another process makes the image of a view', () => {
  async function prepareView() {
    const bench = await openBench();
    const requests = await makeStack(
      join(bench.directory, 'blobs'),
      layerItems(Object.fromEntries(Array.from({ length: 300 }, (_, index) => [`${index}.txt`, `${index}`]))),
    );
    await build(bench.host, requests);
    const [{ chainId }] = requests;
    const view: SnapshotRequest = { key: 'view', kind: 'view', chain: [chainId], format: 'ForkedCIM' };
    await bench.host.prepareSnapshot(view, context);
    const folder = layerFolder({ chainId, format: 'ForkedCIM' });
    return { ...bench, requests, folder, image: join(bench.root, 'views', `${folder}.erofs`) };
  }

  it('who wants it, too, waits, and nothing of it is taken for left over', async () => {
    const { host, root, folder, image } = await prepareView();
    const child = await start('flock', join(root, 'snapshots', folder), 'sh', '-c', 'echo; exec cat');
    mkdirSync(join(root, 'views'), { recursive: true });
    const unfinished = join(root, 'views', `tmp-${folder}.erofs`);
    writeFileSync(unfinished, 'half');
    expect((await host.observe(context)).leftovers).toEqual([]);
    const describing = host.snapshotMounts('view', context);
    await host.observe(context);
    expect(readFileSync(unfinished, 'utf8')).toBe('half');
    await end(child);
    expect((await describing)[0]?.source).toBe(image);
    expect(readdirSync(join(root, 'views'))).toEqual([`${folder}.erofs`]);
    writeFileSync(unfinished, 'half');
    expect((await host.observe(context)).leftovers.map(({ path }) => path)).toEqual([unfinished]);
  });

  it('all get the whole one', async () => {
    const { host, root, directory, requests } = await prepareView();
    // Hosts of one process know as little of one another as those of several.
    const hosts = [host, ...[1, 2, 3].map(() => createEmbeddedHost({ root }))];
    const described = await Promise.all(hosts.map((each) => each.snapshotMounts('view', context)));
    expect(new Set(described.map((mounts) => JSON.stringify(mounts))).size).toBe(1);
    const request = mountRequest(join(directory, 'shown'), requests);
    await host.mount(request, context);
    expect(readdirSync(request.path)).toHaveLength(300);
    await host.dismount(request.volumeGuid, context);
  });
});

describe.runIf(writable && hasTools)('while another process is at work on a scratch', () => {
  it('its mount is not taken away, and who wants to mount it waits', async () => {
    const { host, root, mount, elsewhere } = await prepare(SIZED);
    const [name = ''] = readdirSync(join(root, 'snapshots')).filter((each) => each.length === 36);
    const folder = join(root, 'snapshots', name);
    const image = join(folder, 'scratch.ext4');
    // As `cimlet layer diff` does, beside the agent.
    run('mount', '-o', 'loop', image, join(folder, 'scratch'));
    const child = await start('flock', image, 'sh', '-c', 'echo; exec cat');
    expect((await host.observe(context)).leftovers).toEqual([]);
    expect(await host.cleanLeftovers(context)).toEqual([]);
    expect(readdirSync(join(folder, 'scratch'))).toContain(name);
    let isMounted = false;
    const mounting = host.mount(mount, context).then(() => {
      isMounted = true;
    });
    await host.observe(context);
    expect([isMounted, readdirSync(elsewhere)]).toEqual([false, []]);
    await end(child);
    await mounting;
    writeFileSync(join(mount.path, 'file'), 'file');
    await host.dismount(mount.volumeGuid, context);
    await host.removeSnapshot('work', context);
  });

  it('others that are kept in it can be removed, though other mount namespaces see its mount', async () => {
    const { host, directory, root } = await openBench();
    // As `/` is with systemd, whose services have slaves of it.
    run('mount', '--bind', directory, directory);
    run('mount', '--make-shared', directory);
    const owner: SnapshotRequest = {
      key: 'work',
      kind: 'active',
      chain: [],
      format: 'BlockCIM',
      scratch: SIZED,
    };
    await host.prepareSnapshot(owner, context);
    await host.prepareSnapshot({ ...owner, key: 'sharer', scratch: { shareWith: 'work' } }, context);
    const child = await start('unshare', '-m', '--propagation', 'slave', 'sh', '-c', 'echo; exec cat');
    const folder = join(root, 'snapshots', snapshotGuid('work'));
    run('mount', '-o', 'loop', join(folder, 'scratch.ext4'), join(folder, 'scratch'));
    expect(readFileSync(`/proc/${child.pid}/mountinfo`, 'utf8')).toContain(join(folder, 'scratch'));
    await host.removeSnapshot('sharer', context);
    await host.removeSnapshot('work', context);
  });

  it('it is said who that is when it takes long', { timeout: 60_000 }, async () => {
    const { host, root } = await prepare();
    const [name = ''] = readdirSync(join(root, 'snapshots')).filter((each) => each.length === 36);
    const place = join(root, 'snapshots', name, 'scratch', name);
    const child = await start('flock', '-s', place, 'sh', '-c', 'echo; exec cat');
    const refused = host.removeSnapshot('work', context);
    // Now and then /proc/locks changes while it is read.
    const message = expect.stringMatching(`in use by (process ${child.pid}|another process)`);
    await expect(refused).rejects.toMatchObject({ code: 'busy', message });
    expect(readFileSync(join(root, 'snapshots', name, 'snapshot.json'), 'utf8')).toContain('work');
    await end(child);
    await host.removeSnapshot('work', context);
  });
});
