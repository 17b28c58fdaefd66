/** docs/fleet.md: hosts that follow branches of one repository, and a change that goes from one stage to the next. */

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { expectProgram } from '../support/program.ts';
import { hasTool, requireOrSkip } from '../support/requirements.ts';
import { AgentProcess } from './agent-process.ts';
import { BASE, PATCH, World } from './world.ts';

const EXAMPLES = resolve(import.meta.dirname, '../../examples/fleet');
const agents: AgentProcess[] = [];
afterEach(async () => {
  await Promise.all(agents.splice(0).map((agent) => agent.end('SIGKILL')));
});

test.runIf(requireOrSkip('git', hasTool('git')))(
  'a change reaches the canaries, then, promoted, the others',
  async () => {
    const world = new World();
    const repository = world.path('repository');
    const git = (...args: string[]) =>
      execFileSync('git', ['-C', repository, '-c', 'user.name=a', '-c', 'user.email=a@b', ...args]);
    await world.image('app', [BASE, PATCH]);

    const declare = (path: string) => {
      const layout = `ociLayout: ${world.path('images/app')}`;
      const image = `kind: Image\nmetadata: {name: app}\nspec: {source: {${layout}}}`;
      const mount = `kind: Mount\nmetadata: {name: app}\nspec: {image: app, view: Extracted, path: ${path}}`;
      const version = 'apiVersion: cimlet.dev/v1alpha1\n';
      world.write('repository/hosts/app.yaml', `${version}${image}\n---\n${version}${mount}\n`);
      git('add', '.');
      git('commit', '-qm', path);
    };
    world.write('repository/README.md', 'manifests of the fleet');
    git('init', '-qb', 'canary');
    declare(world.path('first'));
    git('branch', 'stable');

    const start = (stage: string) => {
      const text = readFileSync(join(EXAMPLES, `${stage}.yaml`), 'utf8');
      const here = text
        .replace('https://git.example.com/fleet/layers.git', repository)
        .replace('/var/lib/cimlet', `root-${stage}`)
        .replace(/interval: \d+m/, 'interval: 100ms');
      const agent = new AgentProcess(['--config', world.write(`${stage}.yaml`, here)]);
      agents.push(agent);
      return agent;
    };
    const canary = start('canary');
    await canary.until('done', 'Mount/app');
    declare(world.path('second'));
    await canary.until('done', 'Mount/app');
    expect(existsSync(world.path('second/a.txt'))).toBe(true);
    const stable = start('stable');
    await stable.until('done', 'Mount/app');
    expect(existsSync(world.path('first/a.txt'))).toBe(true);
    // Both hosts are this machine: the canary makes room.
    await canary.end('SIGTERM');
    await expectProgram(['delete', 'mount/app', '--yes', '--root', world.path('root-canary')]);
    git('branch', '-f', 'stable', 'canary');
    await stable.until('done', 'Mount/app');
    expect(existsSync(world.path('second/a.txt'))).toBe(true);
    expect(existsSync(world.path('first'))).toBe(false);
  },
);

test.each([
  ['canary', ['Image/app', 'Mount/app']],
  ['stable', ['Image/app']],
])('a resource for hosts with a label is planned on those: %s', async (stage, expected) => {
  const world = new World();
  await world.image('app', [BASE]);
  world.write(
    'manifests/app.yaml',
    `apiVersion: cimlet.dev/v1alpha1
kind: Image
metadata: {name: app}
spec: {source: {ociLayout: ../images/app}}
---
apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: {name: app}
spec: {image: app, view: Extracted, path: ${world.mountPoint}, hosts: {matchLabels: {stage: canary}}}
`,
  );
  const config = join(EXAMPLES, `${stage}.yaml`);
  const flags = ['--config', config, '--root', world.root, '-o', 'json'];
  const { stdout } = await expectProgram(['plan', '-f', world.path('manifests'), ...flags]);
  const { actions } = JSON.parse(stdout) as { actions: { id: string }[] };
  expect(actions.map(({ id }) => id).filter((id) => !id.startsWith('Snapshot/'))).toEqual(expected);
});
