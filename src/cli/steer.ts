/** `cimlet reconcile`, `suspend`, `resume`, `wait`: what a running agent, or the next one, is told. */

import { hostname, userInfo } from 'node:os';
import { Argument } from 'commander';
import { CimletError } from '../errors.ts';
import type { Kind, ResourceKey } from '../manifests/resources.ts';
import { timerMs } from '../reconciler/retry-policy.ts';
import { type Item, pathOf } from '../server/items.ts';
import type { ResourceRecord } from '../state/records.ts';
import { requireResource, type State } from '../state/state.ts';
import { type AgentClient, agentOf } from './agent-client.ts';
import type { AddCommand, CliContext } from './context.ts';
import { type GlobalOptions, parseTarget } from './options.ts';
import { withReader, withWriter } from './session.ts';
import { interruptible } from './signals.ts';

const example = (...lines: string[]) =>
  `\n${lines.length > 1 ? 'Examples' : 'Example'}:\n${lines.map((line) => `  cimlet ${line}`).join('\n')}`;

const resourceArgument = () => new Argument('<kind/name>', 'the resource').argParser(parseTarget);

export const addReconcile: AddCommand = (program, context) => {
  program
    .command('reconcile')
    .description('have the running agent look now')
    .addArgument(
      new Argument('[kind/name]', 'what is tried whatever happened to it; all when left out').argParser(
        parseTarget,
      ),
    )
    .addHelpText('after', example('reconcile', 'reconcile mount/app'))
    .action(async (key: ResourceKey | undefined, _options, command) => {
      const client = await requireAgent(context, command.optsWithGlobals(), 'reconcile');
      await client.post('/api/v1/reconcile', key === undefined ? {} : { key });
      context.terminal.print(`${key ?? 'everything'} is being reconciled`);
    });
};

export const addSuspend: AddCommand = (program, context) => {
  program
    .command('suspend')
    .description('leave a resource as it is, whatever its manifest says')
    .addArgument(resourceArgument())
    .requiredOption('--reason <text>', 'why, for whoever wonders')
    .option('--by <name>', 'who says so', `${userInfo().username}@${hostname()}`)
    .addHelpText('after', example('suspend mount/app --reason "looking into a leak"'))
    .action(async (key: ResourceKey, _options, command) => {
      const options = command.optsWithGlobals() as GlobalOptions & { reason: string; by: string };
      const { reason, by } = options;
      const client = await agentOf(context, options);
      if (client !== undefined) await client.post('/api/v1/suspend', { key, reason, by });
      else
        await withWriter(context, options, 'suspend', async ({ state }) => {
          requireResource(state, key);
          state.suspend({ key, reason, by });
        });
      context.terminal.print(`${key} is suspended; to go on: cimlet resume ${key}`);
    });
};

export const addResume: AddCommand = (program, context) => {
  program
    .command('resume')
    .description('end what suspend began')
    .addArgument(resourceArgument())
    .addHelpText('after', example('resume mount/app'))
    .action(async (key: ResourceKey, _options, command) => {
      const options = command.optsWithGlobals() as GlobalOptions;
      const client = await agentOf(context, options);
      const wasSuspended =
        client === undefined
          ? await withWriter(context, options, 'resume', async ({ state }) => state.resume(key))
          : ((await client.post('/api/v1/resume', { key })) as { wasSuspended: boolean }).wasSuspended;
      context.terminal.print(wasSuspended ? `${key} is resumed` : `${key} was not suspended`);
    });
};

const WAIT_HELP = `
Exit codes: 0 it is ready; 1 it is stalled, or wasn't ready in time.

Example:
  cimlet wait mount/app --timeout 2m`;

export const addWait: AddCommand = (program, context) => {
  program
    .command('wait')
    .description('wait until a resource is ready')
    .addArgument(resourceArgument())
    .option('--timeout <duration>', 'how long', '5m')
    .addHelpText('after', WAIT_HELP)
    .action(async (key: ResourceKey, _options, command) => {
      const options = command.optsWithGlobals() as GlobalOptions & { timeout: string };
      await interruptible(context, (signal) => waitUntilReady(context, key, options, signal));
    });
};

async function waitUntilReady(
  context: CliContext,
  key: ResourceKey,
  options: GlobalOptions & { timeout: string },
  interrupted: AbortSignal,
): Promise<void> {
  const timeout = AbortSignal.timeout(timerMs(options.timeout));
  const done = new AbortController();
  const signal = AbortSignal.any([interrupted, timeout, done.signal]);
  const client = await agentOf(context, options);
  // Watching begins first, so that nothing is missed in between.
  const [kind, name] = key.split('/') as [Kind, string];
  const changes = await client?.watch(pathOf(kind), signal);
  const isReady = () => withReader(context, options, async ({ state }) => readOutcome(state, key));
  try {
    if (await isReady()) return context.terminal.print(`${key} is ready`);
    for await (const { data } of changes ?? []) {
      const isAboutIt = (data as Partial<Item>).name === name;
      if (isAboutIt && (await isReady())) return context.terminal.print(`${key} is ready`);
    }
  } catch (error) {
    if (!timeout.aborted) throw error;
  } finally {
    // A watch that goes on would keep this process alive.
    done.abort();
  }
  const why = timeout.aborted ? `not ready within ${options.timeout}` : 'not ready, and no agent is at work';
  throw new CimletError('unavailable', `wait for ${key}: ${why}`, { hint: `see cimlet describe ${key}` });
}

/** Throws `failed-precondition` when it is stalled. */
function readOutcome(state: State, key: ResourceKey): boolean {
  const record: ResourceRecord | undefined = state.resource(key);
  const isTrue = (type: string) =>
    record?.conditions.find((condition) => condition.type === type && condition.status === 'True');
  const stalled = isTrue('Stalled');
  if (stalled === undefined) return isTrue('Ready') !== undefined;
  throw new CimletError('failed-precondition', `${key} is stalled: ${stalled.message}`, {
    hint: `see cimlet describe ${key}`,
  });
}

async function requireAgent(
  context: CliContext,
  options: GlobalOptions,
  command: string,
): Promise<AgentClient> {
  const client = await agentOf(context, options);
  if (client !== undefined) return client;
  throw new CimletError('failed-precondition', `${command}: no agent runs on ${options.root}`, {
    hint: 'start one with cimlet agent, or use cimlet apply',
  });
}
