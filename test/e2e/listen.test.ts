/** The agent on a TCP port: who may ask it what, and how a push to git reaches it. */

import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { runProgram } from '../support/program.ts';
import { hasTool, requireOrSkip } from '../support/requirements.ts';
import { AgentProcess } from './agent-process.ts';
import { BASE, World } from './world.ts';

let agent: AgentProcess | undefined;
afterEach(async () => {
  await agent?.end('SIGKILL');
  agent = undefined;
});

/** As a git server would: signs what it was given to tell, and sends it to the agent. */
const POST_RECEIVE = `#!${process.execPath}
const { createHmac } = require('node:crypto');
const { readFileSync } = require('node:fs');
const [, , ref] = readFileSync(0, 'utf8').trim().split(' ');
const body = JSON.stringify({ ref, repository: { default_branch: 'main' } });
const signature = createHmac('sha256', readFileSync(process.env.SECRET_FILE, 'utf8').trim()).update(body).digest('hex');
const headers = { 'content-type': 'application/json', 'x-hub-signature-256': 'sha256=' + signature };
fetch(process.env.HOOK, { method: 'POST', body, headers }).then(async (answer) => {
  process.stderr.write(answer.status + ' ' + (await answer.text()));
});
`;

describe.runIf(requireOrSkip('git', hasTool('git')))('webhooks', () => {
  test('a push is reconciled at once, though the source is looked at once an hour', async () => {
    const world = new World();
    await world.image('app', [BASE]);
    world.app({ view: 'Extracted' });
    const git = (...args: string[]) =>
      execFileSync('git', ['-C', world.directory, '-c', 'user.name=a', '-c', 'user.email=a@b', ...args]);
    git('init', '-qb', 'main');
    git('init', '-q', '--bare', '-b', 'main', 'server.git');
    git('remote', 'add', 'origin', world.path('server.git'));
    git('add', 'manifests', 'images');
    git('commit', '-qm', 'first');
    git('push', '-q', 'origin', 'main');
    const secret = world.write('secret', 'It is between us\n');
    const config = world.write(
      'cimlet.yaml',
      [
        'root: root',
        'listen: {address: "0", tokenVariable: CIMLET_TEST_TOKEN}',
        'sources:',
        `- name: apps`,
        '  interval: 1h',
        `  git: {url: ${world.path('server.git')}, path: manifests, include: ["**"], webhook: {provider: GitHub, secretFile: secret}}`,
      ].join('\n'),
    );
    agent = new AgentProcess(['--config', config], { CIMLET_TEST_TOKEN: 'let me in' });
    const { port } = await agent.until('listening');
    await agent.until('done', 'Mount/app');
    const address = `http://127.0.0.1:${port}`;

    writeFileSync(world.path('server.git/hooks/post-receive'), POST_RECEIVE, { mode: 0o755 });
    const push = (...refs: string[]) =>
      execFileSync('git', ['-C', world.directory, 'push', '-q', 'origin', ...refs], {
        env: { ...process.env, SECRET_FILE: secret, HOOK: `${address}/hooks/apps` },
        stdio: 'pipe',
      });
    push('main:elsewhere');
    await expect(agent.until('webhook')).resolves.toMatchObject({ isHeeded: false });
    world.app({ view: 'Extracted', path: world.path('moved') });
    git('commit', '-qam', 'moved');
    push('main');
    await expect(agent.until('webhook')).resolves.toMatchObject({ isHeeded: true });
    await agent.until('new revision');
    await agent.until('done', 'Mount/app');
    expect(readFileSync(world.path('moved/a.txt'), 'utf8')).toBe('alpha');

    const post = (path: string, body: string, headers: Record<string, string> = {}) =>
      fetch(`${address}${path}`, { method: 'POST', body, headers });
    const forged = await post('/hooks/apps', '{}', { 'x-hub-signature-256': `sha256=${'0'.repeat(64)}` });
    expect(forged.status).toBe(401);
    expect(await forged.text()).not.toMatch(/sign|secret/);
    await agent.until('webhook refused');
    expect((await post('/hooks/none', '{}')).status).toBe(404);
    expect((await post('/hooks/apps', 'x'.repeat(2 ** 20 + 1))).status).toBe(413);

    const get = async (path: string, token?: string) =>
      (await fetch(`${address}${path}`, token === undefined ? {} : { headers: { authorization: token } }))
        .status;
    expect([await get('/healthz'), await get('/readyz')]).toEqual([200, 200]);
    expect([await get('/metrics'), await get('/api/v1/mounts', 'Bearer wrong')]).toEqual([401, 401]);
    expect(await get('/metrics', 'Bearer let me in')).toBe(200);
    await agent.end('SIGTERM');
  });
});

test('a token or a port that cannot be had is said before anything is done', async () => {
  const world = new World();
  const start = (listen: string) =>
    runProgram(['agent', '--config', world.write('cimlet.yaml', `root: root\nlisten: ${listen}\n`)]);
  const missing = await start('{address: "9180", tokenFile: nowhere}');
  expect(missing.code).toBe(1);
  expect(missing.stderr).toMatch(/cimlet\.yaml:2:\d+: listen\.tokenFile: .*nowhere.*ENOENT/);
  expect((await start('{address: "99999", tokenFile: x}')).stderr).toMatch(/cimlet\.yaml:2:\d+: .*65535/);
  expect((await start('{address: "9180"}')).stderr).toMatch(/cimlet\.yaml:2:\d+: .*token/);

  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const { port } = taken.address() as { port: number };
  world.write('token', 'secret');
  const second = await start(`{address: "${port}", tokenFile: token}`);
  taken.close();
  expect(second.code).toBe(1);
  expect(second.stderr).toMatch(new RegExp(`listen on 127.0.0.1:${port}: address already in use`));
  expect(second.stderr).toContain('listen.address');
  expect(second.stderr + second.stdout + missing.stderr).not.toContain('secret');
});
