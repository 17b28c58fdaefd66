/** What must hold of a chaos run: that it comes to what is declared, and that nothing else is left. */

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { connectAgent } from '../../src/cli/agent-client.ts';
import { isErrorCode } from '../../src/errors.ts';
import { createEmbeddedHost } from '../../src/hosts/embedded/embedded-host.ts';
import type { Plan } from '../../src/reconciler/types.ts';
import { agentSocket } from '../../src/server/address.ts';
import type { ResourceRecord } from '../../src/state/records.ts';
import { openState } from '../../src/state/state.ts';
import { mountsBelow, unmountBelow } from '../support/mounts.ts';
import { contentOf, GIT_APPS } from './apps.ts';
import { blobsOf } from './servers.ts';
import type { ChaosWorld } from './world.ts';

/** Undefined when the agent has what is declared now in force, and sees nothing to do; otherwise what it is about. */
export async function findUnrest(world: ChaosWorld, signal: AbortSignal): Promise<string | undefined> {
  try {
    const client = await connectAgent(agentSocket(world.root));
    if (client === undefined) return 'the agent does not listen yet';
    const { items } = (await client.get('/api/v1/sources', signal)) as {
      items: { name: string; status: { revision?: string; trouble?: unknown } }[];
    };
    const revisions = await world.revisions();
    for (const { name, status } of items) {
      const { revision, trouble } = status;
      if (revision !== revisions[name] || trouble !== undefined)
        return `source ${name} is at ${revision}, not at ${revisions[name]}: ${JSON.stringify(trouble)}`;
    }
    const plan = (await client.get('/api/v1/plan', signal)) as Plan;
    if (plan.actions.length > 0)
      return `still to do: ${plan.actions.map(({ verb, id }) => `${verb} ${id}`).join(', ')}`;
    const leftover = plan.notes.find(({ message }) => message.includes('leftover'));
    if (leftover !== undefined) return leftover.message;
    const [blocked] = plan.blocked;
    if (blocked !== undefined) return `${blocked.key} is blocked: ${blocked.message}`;
    const unready = recordsOf(world).find(
      ({ conditions }) => !conditions.some(({ type, status }) => type === 'Ready' && status === 'True'),
    );
    return unready && `${unready.kind}/${unready.name} is not ready: ${JSON.stringify(unready.conditions)}`;
  } catch (error) {
    if (isErrorCode(error, 'unavailable', 'busy', 'failed-precondition', 'corrupt', 'cancelled'))
      return error.message;
    throw error;
  }
}

/** Throws with the first thing that doesn't hold once there is no unrest. */
export async function checkInvariants(world: ChaosWorld): Promise<void> {
  checkViews(world);
  const records = recordsOf(world);
  const kinds = ['Image', 'LayerChain', 'Mount'];
  expectSame(
    'inventory',
    records.map(({ kind, name }) => `${kind}/${name}`),
    [...world.apps.keys()].flatMap((name) => kinds.map((kind) => `${kind}/${name}`)),
  );
  const observed = await createEmbeddedHost({ root: world.root }).observe({
    signal: new AbortController().signal,
  });
  expectSame(
    'leftovers',
    observed.leftovers.map(({ path }) => path),
    [],
  );
  expectSame(
    'faults',
    [...observed.layers, ...observed.merges].flatMap(({ faults }) => faults.map(({ message }) => message)),
    [],
  );
  const needed = records.flatMap(
    ({ facts: { chain } }) => chain?.chainIds.map((id) => `${chain.format} ${id}`) ?? [],
  );
  expectSame(
    'layers',
    observed.layers.map(({ format, chainId }) => `${format} ${chainId}`),
    [...new Set(needed)],
  );
  expectSame(
    'scratches',
    observed.snapshots.map(({ key }) => key),
    [...world.apps].filter(([, { isWritable }]) => isWritable).map(([name]) => `mount/${name}`),
  );
  checkLoopDevices(world);
  checkBlobs(world);
}

/** Every declared mount, no other, and each shows its app's files, byte for byte. */
function checkViews({ apps, views }: ChaosWorld): void {
  expectSame(
    'mount points',
    mountsBelow(views),
    [...apps.values()].map(({ place }) => join(views, place)),
  );
  for (const [name, shape] of apps) {
    const point = join(views, shape.place);
    const files = readdirSync(point, { recursive: true, encoding: 'utf8' }).filter((file) =>
      statSync(join(point, file)).isFile(),
    );
    const summary = (file: string, content: Buffer | string) => `${file}=${sha256(content)}`;
    expectSame(
      `files of ${name}`,
      files.map((file) => summary(file, readFileSync(join(point, file)))),
      [...contentOf(name, shape)].map(([file, content]) => summary(file, content)),
    );
  }
}

/** None is over a file that is gone, and each goes by itself with the mount that has it (`checkNothingHeld`). */
function checkLoopDevices({ directory }: ChaosWorld): void {
  const leaked = loopDevices(directory).filter(
    (device) =>
      readLoop(device, 'backing_file').endsWith('(deleted)') || readLoop(device, 'autoclear') !== '1',
  );
  expectSame('loop devices left behind', leaked, []);
}

/** Without agent and mounts no loop device is left. The kernel takes them away a moment after the mounts. */
export async function checkNothingHeld({ directory, views }: ChaosWorld): Promise<void> {
  unmountBelow(views);
  const deadline = AbortSignal.timeout(10_000);
  for (;;) {
    const held = loopDevices(directory);
    if (held.length === 0) return;
    if (deadline.aborted) expectSame('loop devices without mounts', held, []);
    await pause(20);
  }
}

/** Over files in the directory. */
function loopDevices(directory: string): string[] {
  return readdirSync('/sys/block').filter((name) => readLoop(name, 'backing_file').startsWith(directory));
}

/** Empty for a device that is gone, or not a loop device in use. */
function readLoop(device: string, attribute: string): string {
  try {
    return readFileSync(`/sys/block/${device}/loop/${attribute}`, 'utf8').trim();
  } catch (error) {
    if (['ENOENT', 'ENXIO', 'ENODEV'].includes((error as NodeJS.ErrnoException).code ?? '')) return '';
    throw error;
  }
}

/** What was fetched is what its name says. */
function checkBlobs({ root }: ChaosWorld): void {
  const blobs = join(root, 'images/blobs/sha256');
  const names = readdirSync(blobs);
  expectSame(
    'blobs',
    names.map((name) => sha256(readFileSync(join(blobs, name)))),
    names,
  );
}

/** After gc, by the names alone: no file of a layer, blob or source that what is declared doesn't need. */
export function checkNothingKept(world: ChaosWorld): void {
  const { root, apps, images } = world;
  const needed = GIT_APPS.flatMap((name) => blobsOf(join(images, `${name}${apps.get(name)?.version}`)));
  expectSame(
    'blobs that are kept',
    readdirSync(join(root, 'images/blobs/sha256')),
    [...new Set(needed)].map((digest) => digest.replace('sha256:', '')),
  );
  expectSame('sources that are kept', readdirSync(join(root, 'sources')), ['files', 'fleet']);
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' });
  expectSame(
    'what was begun and not ended',
    files.filter((file) => /(^|[/.])(tmp|rm)-/.test(file)),
    [],
  );
  const chains = new Set(
    recordsOf(world).flatMap(
      ({ facts }) => facts.chain?.chainIds.map((id) => id.replace('sha256:', '')) ?? [],
    ),
  );
  const strangers = files.filter((file) => {
    const [, id] = /^(?:cim-layers|snapshots)\/(?:.*\/)?[^/]*?([0-9a-f]{64})[^/]*$/.exec(file) ?? [];
    return id !== undefined && !chains.has(id);
  });
  expectSame('files of other layers', strangers, []);
}

function recordsOf({ root }: ChaosWorld): readonly ResourceRecord[] {
  const state = openState(root, { readOnly: true });
  try {
    return state.records().resources;
  } finally {
    state.close();
  }
}

function sha256(content: Buffer | string): string {
  return createHash('sha256').update(content).digest('hex');
}

/** In any order. */
function expectSame(what: string, found: readonly string[], wanted: readonly string[]): void {
  const [left, right] = [found, wanted].map((items) => JSON.stringify([...items].sort()));
  if (left !== right) throw new Error(`${what}: found ${left}, not ${right}`);
}
