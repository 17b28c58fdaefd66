/**
 * A Windows process that has calls of effects fail, and is killed while one of each root's doesn't return; the next process goes on
 * where it died. It does what it is asked over a socket (killing.ts). Argument: the port.
 */

import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import type { Host } from '../../../src/hosts/host.ts';
import { createWindowsHost } from '../../../src/hosts/windows/windows-host.ts';
import { openWindowsApi } from '../../../src/native/windows/windows.ts';
import { context, look } from '../../conformance/host.ts';
import { connectChannel } from '../../support/line-channel.ts';
import { type Effect, FAMILIES, type Family, warnings } from './effect.ts';
import { effectsOf } from './effects.ts';
import { foreignFacts, makeForeign, putForeignFiles } from './foreign.ts';

export interface Stage {
  family: Family;
  effect: string;
}

export type Ask =
  | { do: 'prepare the world' | 'look' }
  /** Runs an effect undisturbed. */
  | { do: 'learn'; stage: Stage }
  /** Runs it with a call that fails, then again. */
  | { do: 'fail'; stage: Stage; call: string; nth: number }
  /** Runs it with a call that doesn't return; answers only when it does. */
  | { do: 'die'; stage: Stage; fault: string }
  /** Goes on after that. */
  | { do: 'recover'; stage: Stage }
  /** Takes all away that is in a family's root. */
  | { do: 'empty'; stage: Stage };

export interface Called {
  call: string;
  result?: string;
}

/** What is there then. */
export interface Answer {
  error?: string;
  /** All effects, of `prepare the world`. */
  stages: Stage[];
  /** What it called, in order; of `learn` and, until it failed, of `fail`. */
  calls: Called[];
  /** Of the root: the same after the same effect. */
  facts: string[];
  /** Of everybody else. */
  foreign: string[];
  volumes: string[];
}

const NOTHING: Answer = { stages: [], calls: [], facts: [], foreign: [], volumes: [] };

const LOG = 'C:\\doubles\\calls.jsonl';
const FAULTS = 'C:\\doubles\\faults.txt';
/** Names that differ from run to run. */
const RANDOM = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{64}(?:-\d+(?=\.cim))?|[0-9a-f]{32}/g;

const { kernel32 } = openWindowsApi();

async function answer(ask: Ask): Promise<Answer> {
  const found = 'stage' in ask ? await onStage(ask) : ask.do === 'look' ? {} : await prepareWorld();
  const volumes = (await kernel32.findVolumes()).sort();
  return { ...NOTHING, ...found, foreign: await foreignFacts(), volumes };
}

async function prepareWorld(): Promise<Partial<Answer>> {
  await makeForeign();
  const stages: Stage[] = [];
  for (const family of FAMILIES) {
    await putForeignFiles(rootOf(family));
    for (const { name } of await ownEffects(family)) stages.push({ family, effect: name });
  }
  return { stages };
}

async function onStage(ask: Extract<Ask, { stage: Stage }>): Promise<Partial<Answer>> {
  const { family, effect: wanted } = ask.stage;
  const root = rootOf(family);
  const host = createWindowsHost({ root });
  if (ask.do === 'empty') {
    await empty(host);
    return { facts: await factsOf(host, root) };
  }
  const effect = (await ownEffects(family)).find(({ name }) => name === wanted);
  assert(effect !== undefined, `no effect ${wanted}`);
  switch (ask.do) {
    case 'learn':
      return learn(host, effect, root);
    case 'fail':
      return fail(host, effect, root, ask);
    case 'die':
      await effect.prepare(host);
      await writeFile(FAULTS, ask.fault);
      await effect.run(host);
      throw new Error(`it ended, though ${ask.fault} was planned`);
    case 'recover':
      await writeFile(FAULTS, '');
      await host.cleanLeftovers(context);
      assert.deepEqual((await look(host)).leftovers, []);
      await effect.run(host);
      return { facts: await factsOf(host, root) };
  }
}

const known = new Map<Family, Promise<Effect[]>>();

/** Made once: their layers are, too. */
function ownEffects(family: Family): Promise<Effect[]> {
  const effects = known.get(family) ?? effectsOf(family, rootOf(family), nameOf(family));
  known.set(family, effects);
  return effects;
}

async function learn(host: Host, effect: Effect, root: string): Promise<Partial<Answer>> {
  await effect.prepare(host);
  await rm(LOG, { force: true });
  await effect.run(host);
  return { calls: await called(), facts: await factsOf(host, root) };
}

async function called(): Promise<Called[]> {
  const lines = (await readFile(LOG, 'utf8')).split('\n');
  const calls = lines.filter((line) => line !== '').map((line) => JSON.parse(line) as Called);
  return calls.map(({ call, result }) => ({ call, ...(result === undefined ? {} : { result }) }));
}

/** What fails leaves nothing of it, and says which call it was. What can do without the call says so, and does the rest. */
async function fail(
  host: Host,
  effect: Effect,
  root: string,
  { call, nth }: { call: string; nth: number },
): Promise<Partial<Answer>> {
  await effect.prepare(host);
  const before = [await factsOf(host, root), await kernel32.findVolumes()];
  // E_FAIL, which no caller has a reason to expect.
  await writeFile(FAULTS, `${call} ${nth} fail 80004005\n`);
  await rm(LOG, { force: true });
  const { error, said } = await told(() => effect.run(host));
  assert.match(said, new RegExp(`${call} in`));
  const calls = await called();
  const refusals = (name: string) =>
    calls.filter(({ call, result = '' }) => call === name && Number(result) !== 0).length;
  assert.ok(
    refusals('CimCloseImage') <= refusals('CimCloseStream'),
    'an image was closed before its streams',
  );
  const after = [await factsOf(host, root), await kernel32.findVolumes()];
  if (effect.isUndoing === true) await host.cleanLeftovers(context);
  else if (error !== undefined) assert.deepEqual(after, before);
  assert.deepEqual((await look(host)).leftovers, []);
  await effect.run(host);
  return { calls, facts: await factsOf(host, root) };
}

/** The error, and what was warned of where the effect itself could go on. */
async function told(run: () => Promise<unknown>): Promise<{ error: string | undefined; said: string }> {
  warnings.splice(0);
  const error = await run().then(
    () => undefined,
    (thrown: Error) => thrown.message,
  );
  return { error, said: [error, ...warnings].join('\n') };
}

/** Without what is kept for the next time: the root's directories, and templates of scratches. */
async function factsOf(host: Host, root: string): Promise<string[]> {
  const { layers, merges, mounts, snapshots, leftovers } = await look(host);
  const observed = { layers, merges, mounts, snapshots, leftovers };
  const names = await readdir(root, { recursive: true });
  const files = names.filter((name) => name.includes('\\') && !name.startsWith('scratches\\blank-'));
  const seen = Object.entries(observed).flatMap(([kind, all]) => all.map((one) => [kind, one]));
  return [...files, ...seen.map((one) => JSON.stringify(one))].map(masked).sort();
}

function rootOf(family: Family): string {
  return `C:\\roots\\${nameOf(family)}`;
}

function nameOf(family: Family): string {
  return family.replace(' ', '-');
}

function masked(text: string): string {
  return text.replaceAll(RANDOM, '…');
}

async function empty(host: Host): Promise<void> {
  const { mounts, snapshots } = await look(host);
  for (const { volumeGuid } of mounts) await host.dismount(volumeGuid, context);
  for (const { key } of snapshots) await host.removeSnapshot(key, context);
  for (;;) {
    const { layers } = await look(host);
    if (layers.length === 0) return;
    const parents = new Set(layers.map(({ parent }) => parent));
    for (const layer of layers) if (!parents.has(layer.chainId)) await host.removeLayer(layer, context);
  }
}

await mkdir('C:\\doubles', { recursive: true });
const channel = await connectChannel<Answer, Ask>(Number(process.argv[2]));
for (;;) {
  const ask = await channel.receive();
  if (ask === undefined) break;
  const answering = answer(ask).catch(
    (error: Error): Answer => ({ ...NOTHING, error: error.stack ?? error.message }),
  );
  // Who doesn't return is killed, but does other things before.
  if (ask.do === 'die') answering.then((ended) => channel.send(ended));
  else channel.send(await answering);
}
channel.close();
