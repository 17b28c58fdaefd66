/** The agent under what its unit leaves it of root's capabilities. */

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { afterEach, expect, test } from 'vitest';
import { createEmbeddedHost } from '../../src/hosts/embedded/embedded-host.ts';
import { CAPABILITIES } from '../../src/service/systemd-unit.ts';
import { mountsBelow } from '../support/mounts.ts';
import { hasTool, isRoot, requireOrSkip } from '../support/requirements.ts';
import { AgentProcess } from './agent-process.ts';
import { BASE, PATCH, World } from './world.ts';

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const kernel = requireOrSkip('root and kernel EROFS mounts', isRoot && capabilities['view.Kernel'].available);
const setpriv = requireOrSkip('setpriv', hasTool('setpriv'));

let agent: AgentProcess | undefined;
afterEach(async () => {
  await agent?.end('SIGKILL');
  agent = undefined;
});

test.runIf(kernel && setpriv)('is enough to unpack, mount, repair and dismount', async () => {
  const world = new World();
  await world.image('app', [BASE, PATCH]);
  world.app({ view: 'Kernel' });
  const bounds = [
    '-all',
    ...CAPABILITIES.map((name) => `+${name.slice('CAP_'.length).toLowerCase()}`),
  ].join();
  agent = new AgentProcess(['-f', world.path('manifests'), '--root', world.root], {}, [
    'setpriv',
    '--no-new-privs',
    `--bounding-set=${bounds}`,
    `--inh-caps=${bounds}`,
  ]);
  await agent.until('done', 'Mount/app');
  expect(readFileSync(world.path('view/a.txt'), 'utf8')).toBe('alpha');
  world.app({ view: 'Kernel', path: world.path('elsewhere') });
  await agent.until('done', 'Mount/app');
  expect(mountsBelow(world.directory)).toEqual([world.path('elsewhere')]);
  execFileSync('umount', [world.path('elsewhere')]);
  expect(await agent.end('SIGTERM')).toBe(0);
});
