/** `cimlet reconcile`, `suspend`, `resume`: what a running agent, or the next one, is told. */

import { readdirSync } from 'node:fs';
import { hostname, userInfo } from 'node:os';
import { join } from 'node:path';
import { Argument, Option } from 'commander';
import { CimletError } from '../errors.ts';
import type { Suspension } from '../state/records.ts';
import { requireResource, type State } from '../state/state.ts';
import { type AgentClient, agentOf } from './agent-client.ts';
import type { AddCommand, CliContext } from './context.ts';
import { type GlobalOptions, parseSubject } from './options.ts';
import { withWriter } from './session.ts';

const example = (...lines: string[]) =>
  `\n${lines.length > 1 ? 'Examples' : 'Example'}:\n${lines.map((line) => `  cimlet ${line}`).join('\n')}`;

const subjectArgument = () => new Argument('<kind/name>', 'resource or source').argParser(parseSubject);
const byOption = () =>
  new Option('--by <name>', 'who says so').default(`${userInfo().username}@${hostname()}`);

export const addReconcile: AddCommand = (program, context) => {
  program
    .command('reconcile')
    .description('have the running agent look now')
    .addArgument(
      new Argument(
        '[kind/name]',
        'what is tried whatever happened to it; all, sources first, when left out',
      ).argParser(parseSubject),
    )
    .addHelpText('after', example('reconcile', 'reconcile mount/app', 'reconcile source/apps'))
    .action(async (key: Suspension['key'] | undefined, _options, command) => {
      const client = await requireAgent(context, command.optsWithGlobals(), 'reconcile');
      await client.post('/api/v1/reconcile', key === undefined ? {} : { key });
      context.terminal.print(`${key ?? 'everything'} is being reconciled`);
    });
};

export const addSuspend: AddCommand = (program, context) => {
  program
    .command('suspend')
    .description('leave a resource, or all of a source, as it is')
    .addArgument(subjectArgument())
    .requiredOption('--reason <text>', 'why, for whoever wonders')
    .addOption(byOption())
    .addHelpText('after', example('suspend mount/app --reason "looking into a leak"'))
    .action(async (key: Suspension['key'], _options, command) => {
      const options = command.optsWithGlobals() as GlobalOptions & { reason: string; by: string };
      const { reason, by } = options;
      const client = await agentOf(context, options);
      if (client !== undefined) await client.post('/api/v1/suspend', { key, reason, by });
      else
        await withWriter(context, options, 'suspend', async ({ state }) => {
          requireKnown(state, key, options.root);
          state.suspend({ key, reason, by });
        });
      context.terminal.print(`${key} is suspended; to go on: cimlet resume ${key}`);
    });
};

export const addResume: AddCommand = (program, context) => {
  program
    .command('resume')
    .description('end what suspend began')
    .addArgument(subjectArgument())
    .addOption(byOption())
    .addHelpText('after', example('resume mount/app'))
    .action(async (key: Suspension['key'], _options, command) => {
      const options = command.optsWithGlobals() as GlobalOptions & { by: string };
      const { by } = options;
      const client = await agentOf(context, options);
      const wasSuspended =
        client === undefined
          ? await withWriter(context, options, 'resume', async ({ state }) => state.resume(key, by))
          : ((await client.post('/api/v1/resume', { key, by })) as { wasSuspended: boolean }).wasSuspended;
      context.terminal.print(wasSuspended ? `${key} is resumed` : `${key} was not suspended`);
    });
};

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

/** Without an agent a source is known by what one kept of it. */
function requireKnown(state: State, key: Suspension['key'], root: string): void {
  if (!key.startsWith('Source/')) {
    requireResource(state, key);
    return;
  }
  const name = key.slice('Source/'.length);
  if (readdirSync(root).includes('sources') && readdirSync(join(root, 'sources')).includes(name)) return;
  throw new CimletError('not-found', `no agent followed ${key} on ${root}`, {
    hint: 'sources are named in cimlet.yaml',
  });
}
