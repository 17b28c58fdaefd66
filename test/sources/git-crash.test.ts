/** An agent that is killed in the middle of a sync: the next one makes the revision, and leaves nothing behind. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, it } from 'vitest';
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
