/** The agent as a process of its own: follows a folder, repairs, survives, and leaves its mounts when it goes. */

import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { createEmbeddedHost } from '../../src/hosts/embedded/embedded-host.ts';
import { mountsBelow } from '../support/mounts.ts';
import { runProgram } from '../support/program.ts';
import { hasTool, isRoot, requireOrSkip } from '../support/requirements.ts';
import { AgentProcess } from './agent-process.ts';
import { BASE, PATCH, World } from './world.ts';

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const kernel = requireOrSkip('root and kernel EROFS mounts', isRoot && capabilities['view.Kernel'].available);

let agent: AgentProcess | undefined;
afterEach(async () => {
  await agent?.end('SIGKILL');
  agent = undefined;
});

async function worldWithApp(): Promise<World> {
  const world = new World();
  await world.image('app', [BASE, PATCH]);
  world.app();
  return world;
}

const follow = (world: World) => new AgentProcess(['-f', world.path('manifests'), '--root', world.root]);

describe('as a process', () => {
  test.runIf(kernel)('it applies, follows changes, and leaves its mounts when told to stop', async () => {
    const world = await worldWithApp();
    agent = follow(world);
    await agent.until('done', 'Mount/app');
    expect(readFileSync(world.path('view/a.txt'), 'utf8')).toBe('alpha');
    world.app({ path: world.path('elsewhere') });
    await agent.until('new revision');
    await agent.until('done', 'Mount/app');
    expect(existsSync(world.path('view/a.txt'))).toBe(false);
    expect(readFileSync(world.path('elsewhere/a.txt'), 'utf8')).toBe('alpha');
    expect(await agent.end('SIGTERM')).toBe(0);
    expect(mountsBelow(world.directory)).toEqual([world.path('elsewhere')]);
    const planned = await runProgram(['plan', '-f', world.path('manifests'), '--root', world.root]);
    expect(planned.stdout).toContain('No changes');
  });

  test.runIf(kernel)('it repairs what is unmounted behind its back', async () => {
    const world = await worldWithApp();
    const config = world.write(
      'cimlet.yaml',
      'root: root\nsources:\n- {name: here, folder: {path: manifests}}\nintervals: {resync: 100ms}\n',
    );
    agent = new AgentProcess(['--config', config]);
    await agent.until('done', 'Mount/app');
    execFileSync('umount', [world.mountPoint]);
    await agent.until('done', 'Mount/app');
    expect(readFileSync(world.path('view/a.txt'), 'utf8')).toBe('alpha');
  });

  test.runIf(kernel && requireOrSkip('git', hasTool('git')))(
    'it follows a branch of a git repository',
    async () => {
      const world = await worldWithApp();
      const git = (...args: string[]) =>
        execFileSync('git', ['-C', world.directory, '-c', 'user.name=a', '-c', 'user.email=a@b', ...args]);
      const push = (message: string) => {
        git('add', 'manifests', 'images');
        git('commit', '-qm', message);
      };
      git('init', '-qb', 'main');
      push('first');
      const config = world.write(
        'cimlet.yaml',
        `root: root\nsources:\n- {name: apps, interval: 50ms, git: {url: ${world.directory}, ref: {branch: main}, path: manifests, include: ['**']}}\n`,
      );
      agent = new AgentProcess(['--config', config]);
      await agent.until('done', 'Mount/app');
      world.app({ path: world.path('elsewhere') });
      push('moved');
      await agent.until('done', 'Mount/app');
      expect(readFileSync(world.path('elsewhere/a.txt'), 'utf8')).toBe('alpha');
    },
  );

  test.runIf(kernel)('killed at any time, the next one takes over and finishes', async () => {
    const world = await worldWithApp();
    agent = follow(world);
    await agent.until('started', 'Image/app');
    await agent.end('SIGKILL');
    agent = follow(world);
    await agent.until('done', 'Mount/app');
    expect(readFileSync(world.path('view/dir/c.txt'), 'utf8')).toBe('gamma');
  });

  test.runIf(kernel)('a damaged state database is set aside, and what is there is found again', async () => {
    const world = await worldWithApp();
    agent = follow(world);
    await agent.until('done', 'Mount/app');
    await agent.end('SIGTERM');
    const layers = statSync(world.path('root/cim-layers')).mtimeMs;
    const database = world.path('root/state.db');
    writeFileSync(database, readFileSync(database).fill(0xa5, 4096));
    agent = follow(world);
    await agent.until('the state database was damaged');
    await agent.until('done', 'Mount/app');
    expect(mountsBelow(world.directory)).toEqual([world.mountPoint]);
    expect(statSync(world.path('root/cim-layers')).mtimeMs).toBe(layers);
    expect(readdirSync(world.root).join(' ')).toMatch(/state\.db\.damaged-/);
    await agent.end('SIGTERM');
    const described = await runProgram(['plan', '-f', world.path('manifests'), '--root', world.root]);
    expect(described.stdout).toContain('No changes');
  });

  test.runIf(kernel)(
    'it starts on a disk without a byte left, makes room by itself, and goes on',
    async () => {
      const world = await worldWithApp();
      mkdirSync(world.root);
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=24m', 'tmpfs', world.root]);
      agent = follow(world);
      await agent.until('done', 'Mount/app');
      await agent.end('SIGKILL');
      const orphan = world.write(`root/images/blobs/sha256/${'ab'.repeat(32)}`, '');
      const anHourAgo = Date.now() / 1000 - 3600;
      expect(() =>
        execFileSync('dd', ['if=/dev/zero', `of=${orphan}`, 'bs=4k'], { stdio: 'ignore' }),
      ).toThrow();
      utimesSync(orphan, anHourAgo, anHourAgo);
      rmSync(world.path('root/owner.json'));
      appendFileSync(orphan, Buffer.alloc(4096));
      utimesSync(orphan, anHourAgo, anHourAgo);
      world.app({ path: world.path('elsewhere') });
      agent = follow(world);
      await agent.until('done', 'Mount/app');
      await vi.waitUntil(() => !existsSync(orphan), { timeout: 30_000 });
      expect(mountsBelow(world.directory)).toContain(world.path('elsewhere'));
    },
  );

  test.runIf(kernel)('its root is its own while it runs', async () => {
    const world = await worldWithApp();
    agent = follow(world);
    await agent.until('done', 'Mount/app');
    const { code, stderr } = await runProgram(['apply', '-f', world.manifest, '--yes', '--root', world.root]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/agent/);
    expect((await runProgram(['get', 'mounts', '--root', world.root])).stdout).toContain('app');
  });

  test.runIf(kernel)('it is told what to do, and asked how things are, from the command line', async () => {
    const world = await worldWithApp();
    const cimlet = (...args: string[]) => runProgram([...args, '--root', world.root]);
    expect(await cimlet('reconcile')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('no agent runs'),
    });
    agent = follow(world);
    await agent.until('started');
    const waited = await cimlet('wait', 'mount/app', '--timeout', '90s');
    expect(waited).toMatchObject({ code: 0, stdout: 'Mount/app is ready\n' });
    expect(await cimlet('wait', 'mount/app', '--timeout', '60d')).toMatchObject({
      code: 0,
      stdout: waited.stdout,
    });
    expect(await cimlet('suspend', 'mount/app', '--reason', 'hands off')).toMatchObject({ code: 0 });
    execFileSync('umount', [world.mountPoint]);
    expect(await cimlet('reconcile', 'mount/app')).toMatchObject({ code: 0 });
    const plan = await cimlet('plan', '-f', world.path('manifests'));
    expect(plan.stdout).toMatch(/suspended by \S+ since .*: hands off/);
    expect(await cimlet('resume', 'mount/app')).toMatchObject({ code: 0, stdout: 'Mount/app is resumed\n' });
    await agent.until('done', 'Mount/app');
    await agent.until('done', 'Mount/app');
    expect(mountsBelow(world.directory)).toEqual([world.mountPoint]);
    await agent.end('SIGTERM');
    expect(await cimlet('suspend', 'mount/app', '--reason', 'again')).toMatchObject({ code: 0 });
    expect(await cimlet('suspend', 'mount/none', '--reason', 'x')).toMatchObject({ code: 1 });
  });

  test('what is for hosts with other labels is not made here, and goes when the labels change', async () => {
    const world = await worldWithApp();
    world.app({ view: 'Extracted', mountSpec: 'hosts: {matchLabels: {role: web}}' });
    const configure = (role: string) =>
      world.write(
        'cimlet.yaml',
        `root: root\nlabels: {role: ${role}}\nsources:\n- {name: here, folder: {path: manifests}}\n`,
      );
    const config = configure('db');
    const manifests = ['-f', world.path('manifests'), '--config', config];
    const other = 'Mount/app: not for this host: spec.hosts wants role=web';
    expect(await runProgram(['validate', ...manifests])).toMatchObject({
      code: 0,
      stderr: expect.stringContaining(other),
    });
    const planned = (await runProgram(['plan', ...manifests])).stdout;
    expect(planned).toContain('not for this host');
    expect(planned).not.toContain('+  Mount/app');
    configure('web');
    expect((await runProgram(['plan', ...manifests])).stdout).toContain('+  Mount/app');
    agent = new AgentProcess(['--config', config]);
    await agent.until('done', 'Mount/app');
    await agent.end('SIGTERM');
    configure('db');
    agent = new AgentProcess(['--config', config]);
    await agent.until('done', 'Mount/app');
    expect(existsSync(world.path('view/a.txt'))).toBe(false);
    const own = world.write('own.yaml', 'labels: {cimlet.dev/os: x}\n');
    expect((await runProgram(['agent', '--config', own])).stderr).toMatch(/own\.yaml:1:\d+: labels: cimlet/);
  });

  test('a root whose path is too long for a socket has no agent, and can be told things all the same', async () => {
    const world = await worldWithApp();
    const root = world.path('r'.repeat(120));
    const cimlet = (...args: string[]) => runProgram([...args, '--root', root]);
    expect(await cimlet('apply', '-f', world.path('manifests'), '--yes')).toMatchObject({ code: 0 });
    expect(await cimlet('suspend', 'mount/app', '--reason', 'x')).toMatchObject({ code: 0 });
    expect(await cimlet('resume', 'mount/app')).toMatchObject({ code: 0, stdout: 'Mount/app is resumed\n' });
    expect(await cimlet('wait', 'mount/app')).toMatchObject({ code: 0 });
    expect((await cimlet('get', 'mounts')).stdout).toContain('app');
    expect((await cimlet('agent', '-f', world.path('manifests'))).stderr).toContain('shorter');
  });

  test('what it cannot follow or does not know is said before anything is done', async () => {
    const world = new World();
    const nothing = await runProgram(['agent', '--root', world.root]);
    expect(nothing).toMatchObject({ code: 1, stdout: '' });
    expect(nothing.stderr).toContain('name a folder with -f');
    const misspelt = world.write('cimlet.yaml', 'sources:\n- {name: a, foldr: {path: x}}\n');
    const wrong = await runProgram(['agent', '--config', misspelt]);
    expect(wrong).toMatchObject({ code: 1, stdout: '' });
    expect(wrong.stderr).toMatch(/cimlet\.yaml:2:\d+: .*foldr/);
    const restless = world.write('cimlet.yaml', 'intervals: {resync: 0s}\n');
    expect((await runProgram(['agent', '--config', restless])).stderr).toMatch(
      /cimlet\.yaml:1:\d+: intervals\.resync: must be more than 0/,
    );
    rmSync(misspelt);
    expect((await runProgram(['agent', '--config', misspelt])).stderr).toContain('cimlet.yaml');
    expect(existsSync(world.root)).toBe(false);
  });
});
