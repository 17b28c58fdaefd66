/** What the commands that look show of a running agent: the same as without one, and what changes as it changes. */

import { execFile, spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { afterEach, describe, expect, test } from 'vitest';
import { COMPILE_CACHE, MAIN, runProgram } from '../support/program.ts';
import { AgentProcess } from './agent-process.ts';
import { BASE, PATCH, World } from './world.ts';

let agent: AgentProcess | undefined;
let watcher: Watcher | undefined;
afterEach(async () => {
  await watcher?.stop('SIGKILL');
  await agent?.end('SIGKILL');
  watcher = undefined;
  agent = undefined;
});

async function worldWithApp(): Promise<World> {
  const world = new World();
  await world.image('app', [BASE, PATCH]);
  world.app({ view: 'Extracted' });
  return world;
}

const follow = (world: World) => new AgentProcess(['-f', world.path('manifests'), '--root', world.root]);

/** A `--watch` as a process, read line by line. */
class Watcher {
  readonly #child;
  readonly #lines: AsyncIterator<string>;
  readonly #ended: Promise<number | null>;
  #stderr = '';

  constructor(args: string[]) {
    this.#child = spawn(process.execPath, [MAIN, ...args], {
      env: { ...process.env, NODE_COMPILE_CACHE: COMPILE_CACHE, NO_COLOR: '1', COLUMNS: '200' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child.stderr.on('data', (chunk: Buffer) => {
      this.#stderr += chunk.toString();
    });
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
    this.#ended = new Promise((resolve) => this.#child.on('close', resolve));
  }

  /** The next line that holds this. */
  async line(text: string | RegExp): Promise<string> {
    for (;;) {
      const { value, done } = await this.#lines.next();
      if (done === true) throw new Error(`no line with ${text} came: ${this.#stderr}`);
      if (value.search(text) >= 0) return value;
    }
  }

  async stop(signal: NodeJS.Signals): Promise<number | null> {
    this.#child.kill(signal);
    return this.#ended;
  }

  async end(): Promise<{ code: number | null; stderr: string }> {
    return { code: await this.#ended, stderr: this.#stderr };
  }
}

interface Listed {
  items: { kind: string; status: { generation: number; lastAppliedRevision: string } }[];
}

describe('asked', () => {
  test('get, describe, events and plan print the same with an agent and without', async () => {
    const world = await worldWithApp();
    agent = follow(world);
    await agent.until('done', 'Mount/app');
    const cimlet = (...args: string[]) => runProgram([...args, '--root', world.root]);
    expect(await cimlet('wait', 'mount/app')).toMatchObject({ code: 0 });
    const commands = [
      ['get', 'all', '-o', 'json'],
      ['get', 'snapshots', '-o', 'yaml'],
      ['get', 'mount/app', '-o', 'json'],
      ['describe', 'chain/app', '-o', 'json'],
      ['events', '-o', 'json'],
      ['events', 'mount/app', '-o', 'json'],
      ['get', 'mount/none'],
    ];
    const asked = await Promise.all(commands.map((command) => cimlet(...command)));
    const plan = await cimlet('plan', '-o', 'json');
    expect(plan).toMatchObject({ code: 0 });
    expect((await cimlet('plan')).stdout).toContain('No changes');
    expect(await cimlet('plan', '--no-prune')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('need manifests'),
    });
    await agent.end('SIGTERM');
    const read = await Promise.all(commands.map((command) => cimlet(...command)));
    expect(asked.map(({ code, stdout }) => ({ code, stdout }))).toEqual(
      read.map(({ code, stdout }) => ({ code, stdout })),
    );
    for (const { stderr } of [asked.at(-1)!, read.at(-1)!])
      expect(stderr).toContain('no Mount named none was applied');
    const planned = await cimlet('plan', '-f', world.path('manifests'), '-o', 'json');
    expect(JSON.parse(plan.stdout)).toEqual(JSON.parse(planned.stdout));
    expect(await cimlet('plan')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('no manifests named'),
    });
  });
});

describe('watched', () => {
  test('wait is for what is declared by now, and says why it need not go on', async () => {
    const world = await worldWithApp();
    agent = follow(world);
    const cimlet = (...args: string[]) => runProgram([...args, '--root', world.root]);
    await agent.until('started');
    expect(await cimlet('wait', 'mount/app')).toMatchObject({ code: 0 });
    world.app({ view: 'Extracted', mountSpec: 'timeout: 5m' });
    expect(await cimlet('wait', 'mount/app')).toMatchObject({ code: 0 });
    const { status } = (JSON.parse((await cimlet('get', 'mount/app', '-o', 'json')).stdout) as Listed)
      .items[0]!;
    expect(status.generation).toBe(2);
    const [source] = (JSON.parse((await cimlet('get', 'sources', '-o', 'json')).stdout) as Listed).items;
    expect(source).toMatchObject({ kind: 'Source', status: { ready: 'True', resources: 3 } });
    const commit = status.lastAppliedRevision.split(':')[1] ?? '';
    expect(source?.status).toMatchObject({ revision: status.lastAppliedRevision });
    const forRevision = (revision: string) =>
      cimlet('wait', 'mount/app', '--timeout', '2s', '--revision', revision);
    expect(await forRevision(commit.slice(0, 12))).toMatchObject({ code: 0 });
    expect(await forRevision('0123456789ab')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('not ready within 2s') as unknown,
    });

    const waiting = cimlet('wait', 'mount/app', '--timeout', '90s', '--revision', '0123456789ab');
    expect(await forRevision('0123456789ab')).toMatchObject({ code: 1 });
    expect(await cimlet('suspend', 'source/manifests', '--reason', 'a test', '--by', 'ann')).toMatchObject({
      code: 0,
    });
    expect(await waiting).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('is suspended by ann') as unknown,
    });
    expect((await cimlet('get', 'sources')).stdout).toMatch(/manifests +True +Suspended/);
    expect((await cimlet('describe', 'source/manifests')).stdout).toMatch(/Suspended by: +ann[\s\S]*a test/);
    expect(await cimlet('wait', 'mount/app')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('is suspended by ann') as unknown,
    });
    expect(await cimlet('resume', 'source/manifests', '--by', 'bob')).toMatchObject({ code: 0 });
    expect((await cimlet('events', 'source/manifests')).stdout).toMatch(
      /Suspended +Source\/manifests .*by ann: a test\n.*Resumed +Source\/manifests .*by bob/,
    );
    expect(await cimlet('suspend', 'mount/app', '--reason', 'hands off')).toMatchObject({ code: 0 });
    expect((await cimlet('get', 'mounts')).stdout).toMatch(/app +True +Suspended/);
    expect((await cimlet('resume', 'mount/app')).code).toBe(0);
    expect(await cimlet('reconcile', 'source/manifests')).toMatchObject({ code: 0 });
    expect(await cimlet('reconcile', 'source/none')).toMatchObject({ code: 1 });

    world.app({ view: 'Extracted', mountSpec: 'nonsense: 1' });
    expect(await cimlet('wait', 'mount/app', '--timeout', '30s')).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/mount\/app is stalled: .*nonsense/i) as unknown,
    });
    world.app({ view: 'Extracted', mountSpec: 'timeout: 5m' });
    expect(await cimlet('wait', 'mount/app')).toMatchObject({ code: 0 });

    world.write('manifests/broken.yaml', '- [');
    expect(await cimlet('wait', 'mount/app')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('broken.yaml:1') as unknown,
    });
    const { status: inForce } = (
      JSON.parse((await cimlet('get', 'mount/app', '-o', 'json')).stdout) as Listed
    ).items[0]!;
    expect(await forRevision(inForce.lastAppliedRevision)).toMatchObject({ code: 0 });
  });

  test('get --watch: what is there, a line for each change, and what ends it', async () => {
    const world = await worldWithApp();
    agent = follow(world);
    await agent.until('done', 'Mount/app');
    watcher = new Watcher(['get', 'mounts', '--watch', '--root', world.root]);
    expect(await watcher.line('NAME')).toMatch(/^NAME +READY +STATUS +PATH/);
    await watcher.line(/^app +True/);
    rmSync(world.manifest);
    world.write('manifests/other.yaml', world.appText({ view: 'Extracted', path: world.path('else') }));
    await watcher.line(new RegExp(`^app +True .*${world.path('else')}`));
    await agent.end('SIGKILL');
    const { code, stderr } = await watcher.end();
    expect(code).toBe(1);
    expect(stderr).toContain(`the agent of ${world.root} has ended`);
  });

  test('events --watch as data, one event a line; ended by its reader', async () => {
    const world = await worldWithApp();
    agent = follow(world);
    await agent.until('done', 'Mount/app');
    watcher = new Watcher(['events', 'mount/app', '--watch', '-o', 'json', '--root', world.root]);
    expect(JSON.parse(await watcher.line('Created'))).toMatchObject({
      type: 'added',
      object: { key: 'Mount/app', reason: 'Created' },
    });
    expect(await watcher.stop('SIGINT')).toBe(130);
  });

  test('ends when its reader has gone, though nothing changes', async () => {
    const world = await worldWithApp();
    agent = follow(world);
    await agent.until('done', 'Mount/app');
    // The pipe of a shell: what Node itself would make is a socket.
    const pipeline = ['-c', '"$0" "$@" | head -n 1', process.execPath, MAIN];
    const { stdout } = await promisify(execFile)('sh', [
      ...pipeline,
      ...['get', 'mounts', '--watch', '--root', world.root],
    ]);
    expect(stdout).toMatch(/^NAME.*\n$/);
  });

  test('without an agent it says what to do', async () => {
    const world = new World();
    for (const command of [['get', 'mounts'], ['events']]) {
      const { code, stderr } = await runProgram([...command, '--watch', '--root', world.root]);
      expect(code).toBe(1);
      expect(stderr).toMatch(/--watch: no agent runs on .*\nhint: start one with cimlet agent/);
    }
    const all = await runProgram(['get', 'all', '-w', '--root', world.root]);
    expect(all).toMatchObject({ code: 1, stderr: expect.stringContaining('one kind can be watched') });
  });
});
