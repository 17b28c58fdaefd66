/** An agent that is killed in the middle of a sync: the next one makes the revision, and leaves nothing behind. */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { isRoot, requireOrSkip } from '../support/requirements.ts';
import { makeGitWorld, openGitSource, serveHttp } from './git-fixture.ts';
import { NEVER, textsOf } from './support.ts';

const CHILD = resolve(import.meta.dirname, 'sync-child.ts');

it('is made whole by the next sync, whenever the one before was killed', async () => {
  const { world, push } = makeGitWorld();
  push({ 'fleet/a.yaml': 'a', 'other.yaml': 'x'.repeat(1000) });
  let child: ChildProcess | undefined;
  let requestsLeft = Number.POSITIVE_INFINITY;
  const { url, requests } = await serveHttp(world, {
    onRequest: () => {
      if (--requestsLeft === 0) child?.kill('SIGKILL');
    },
  });
  const config = { url: `${url}/server.git`, path: 'fleet' };
  writeFileSync(join(world, 'config.json'), JSON.stringify({ name: 'fleet', git: config }));
  await openGitSource(world, config, 'cache-0').sync(NEVER);
  const all = requests.length;
  expect(all).toBeGreaterThan(3);
  for (let killedAt = 1; killedAt <= all; killedAt++) {
    requestsLeft = killedAt;
    const cache = `cache-${killedAt}`;
    child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', CHILD, world, cache], {
      stdio: 'inherit',
    });
    expect(await once(child, 'exit')).toEqual([null, 'SIGKILL']);
    const source = openGitSource(world, config, cache);
    expect(textsOf(await source.sync(NEVER))).toEqual({ 'a.yaml': 'a' });
    const kept = readdirSync(join(world, cache));
    expect(kept.filter((name) => /^(tmp|rm)-/.test(name))).toEqual([]);
    await source.close();
  }
});

it.runIf(requireOrSkip('root', isRoot))(
  'keeps what it has when the disk is full, and goes on when it no longer is',
  async () => {
    const { world, server, push } = makeGitWorld();
    const cache = join(world, 'cache');
    mkdirSync(cache);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', cache]);
    onTestFinished(() => void execFileSync('umount', [cache]));
    const source = openGitSource(world, { url: server });
    push({ 'a.yaml': 'small' });
    const revision = await source.sync(NEVER);
    await source.accept(revision);

    push({ 'big.tar': randomBytes(2_000_000).toString('hex') });
    await expect(source.sync(NEVER)).rejects.toMatchObject({ code: 'no-space' });
    expect(await source.accepted()).toEqual(revision);
    expect(readFileSync(join(revision.directory, 'a.yaml'), 'utf8')).toBe('small');

    push({ 'big.tar': null, 'b.yaml': 'small too' });
    expect(textsOf(await source.sync(NEVER))).toEqual({ 'a.yaml': 'small', 'b.yaml': 'small too' });
  },
);
