/** `cimlet wait`: until what is declared now is so on the host. */

import { setTimeout as pause } from 'node:timers/promises';
import { Argument } from 'commander';
import { CimletError, classify } from '../errors.ts';
import type { Kind, ResourceKey } from '../manifests/resources.ts';
import { timerMs } from '../reconciler/retry-policy.ts';
import { describeSuspension, type SuspensionNote, suspensionOfSpec } from '../reconciler/suspension.ts';
import { type Item, pathOf, type SourceItem } from '../server/items.ts';
import type { ResourceRecord } from '../state/records.ts';
import type { State } from '../state/state.ts';
import { type AgentClient, agentOf } from './agent-client.ts';
import type { AddCommand, CliContext } from './context.ts';
import { checkDurationOption, type GlobalOptions, parseTarget } from './options.ts';
import { withReader } from './session.ts';
import { interruptible } from './signals.ts';

const HELP = `
The running agent looks at its sources first, and the wait is for what they
declare then: what was ready before a change isn't taken for it. With
--revision it is for that revision, or a beginning of its commit.

Exit codes: 0 it is ready; 1 it is stalled or suspended, or wasn't ready in
time.

Examples:
  cimlet wait mount/app --timeout 2m
  cimlet wait mount/app --revision "$(git rev-parse HEAD)"`;

/** Milliseconds before a source that couldn't be read is looked at again. */
const LOOK_AGAIN_MS = 1000;
/** Milliseconds after which it is assessed again though nothing changed: its source may be suspended or fail meanwhile. */
const ASSESS_AGAIN_MS = 3000;
/** Digits that git shortens a commit to. */
const SHORTEST_COMMIT = 7;

interface WaitOptions extends GlobalOptions {
  timeout: string;
  revision?: string;
}

export const addWait: AddCommand = (program, context) => {
  program
    .command('wait')
    .description('wait until a resource is ready')
    .addArgument(new Argument('<kind/name>', 'the resource').argParser(parseTarget))
    .option('--timeout <duration>', 'how long', checkDurationOption, '5m')
    .option('--revision <revision>', 'as this revision declares it')
    .addHelpText('after', HELP)
    .action(async (key: ResourceKey, _options, command) => {
      const options = command.optsWithGlobals() as WaitOptions;
      await interruptible(context, (signal) => waitUntilReady(context, key, options, signal));
    });
};

async function waitUntilReady(
  context: CliContext,
  key: ResourceKey,
  options: WaitOptions,
  interrupted: AbortSignal,
): Promise<void> {
  const timeout = AbortSignal.timeout(timerMs(options.timeout));
  const done = new AbortController();
  const signal = AbortSignal.any([interrupted, timeout, done.signal]);
  const client = await agentOf(context, options);
  const look = () => withReader(context, options, async ({ state }) => readStanding(state, key));
  try {
    const isReady =
      client === undefined
        ? assess(key, await look(), [], options.revision) === 'ready'
        : await followUntilReady(client, key, { look, revision: options.revision }, signal);
    if (isReady) return context.terminal.print(`${key} is ready`);
  } catch (error) {
    if (!timeout.aborted) throw error;
  } finally {
    // A watch that goes on would keep this process alive.
    done.abort();
  }
  const why = timeout.aborted ? `not ready within ${options.timeout}` : 'not ready, and no agent is at work';
  throw new CimletError('unavailable', `wait for ${key}: ${why}`, { hint: `see cimlet describe ${key}` });
}

/** Returns false when the agent ends before. */
async function followUntilReady(
  client: AgentClient,
  key: ResourceKey,
  { look, revision }: { look: () => Promise<Standing>; revision: string | undefined },
  signal: AbortSignal,
): Promise<boolean> {
  const [kind, name] = key.split('/') as [Kind, string];
  // Watching begins first, so that nothing is missed in between.
  const watch = await client.watch(pathOf(kind), signal);
  const changes = watch[Symbol.asyncIterator]();
  const sources = async () =>
    ((await client.get('/api/v1/sources', signal)) as { items: SourceItem[] }).items;
  const rest = (ms: number): Promise<void> =>
    pause(ms, undefined, { signal }).catch((error: unknown) => {
      throw classify(error, `wait for ${key}`);
    });
  const lookAtSource = async () => {
    const source = sourceOf(await look(), await sources());
    await client.post('/api/v1/look', source === undefined ? {} : { source: source.name }, signal);
  };
  await lookAtSource();
  let next: ReturnType<typeof changes.next> | undefined;
  for (;;) {
    const found = assess(key, await look(), await sources(), revision);
    if (found === 'ready') return true;
    if (found === 'source-away') {
      await rest(LOOK_AGAIN_MS);
      await lookAtSource();
      continue;
    }
    const again = rest(ASSESS_AGAIN_MS);
    for (;;) {
      next ??= changes.next();
      const told = await Promise.race([next, again]);
      if (told === undefined) break;
      if (told.done === true) return false;
      next = undefined;
      if ((told.value.data as Partial<Item>).name === name) break;
    }
  }
}

interface Standing {
  record: ResourceRecord | undefined;
  suspended: SuspensionNote | undefined;
}

function readStanding(state: State, key: ResourceKey): Standing {
  const record = state.resource(key);
  const suspended = state.suspensions().find((each) => each.key === key) ?? suspensionOfSpec(record?.spec);
  return { record, suspended };
}

function sourceOf({ record }: Standing, sources: readonly SourceItem[]): SourceItem | undefined {
  return sources.find(({ status }) => status.sourceId === record?.sourceId);
}

/** Throws `failed-precondition` for what nobody need wait for. `revision`: the one that is wanted; default: its source's. */
function assess(
  key: ResourceKey,
  standing: Standing,
  sources: readonly SourceItem[],
  revision: string | undefined,
): 'ready' | 'waiting' | 'source-away' {
  const { record } = standing;
  if (record === undefined) return 'waiting';
  const fail = (what: string, hint = `see cimlet describe ${key}`) => {
    throw new CimletError('failed-precondition', what, { hint });
  };
  const source = sourceOf(standing, sources);
  const suspended = standing.suspended ?? source?.status.suspended;
  if (suspended !== undefined)
    fail(`${key} is ${describeSuspension(suspended)}`, `to go on: cimlet resume ${key}, or its source`);
  const isAsked = revision !== undefined && isRevision(record.revision, revision);
  // What became of a revision that is named doesn't hang on a later one.
  if (!isAsked && source?.status.trouble !== undefined && source.status.reason === 'SyncFailed') {
    const isStalled = source.status.conditions.some(({ type }) => type === 'Stalled');
    if (!isStalled) return 'source-away';
    fail(`${key}: ${source.status.trouble.message}`, source.status.trouble.hint);
  }
  const wanted = revision ?? source?.status.revision ?? record.revision;
  if (!isRevision(record.revision, wanted)) return 'waiting';
  const find = (type: string) =>
    record.conditions.find((each) => each.type === type && each.status === 'True');
  const stalled = find('Stalled');
  if (stalled !== undefined) fail(`${key} is stalled: ${stalled.message}`);
  return find('Ready') === undefined ? 'waiting' : 'ready';
}

/** `main@sha1:0a1b2c...` goes by its commit too, or a beginning of that. */
function isRevision(revision: string, wanted: string): boolean {
  if (revision === wanted) return true;
  return SHORTEST_COMMIT <= wanted.length && revision.slice(revision.lastIndexOf(':') + 1).startsWith(wanted);
}
