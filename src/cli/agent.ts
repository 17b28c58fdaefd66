/** `cimlet agent` */

import { type Command, Option } from 'commander';
import { CimletError } from '../errors.ts';
import type { ServiceProcess } from '../service/service-manager.ts';
import { configOption } from './configuration.ts';
import type { AddCommand, CliContext } from './context.ts';
import { checkDurationOption, type GlobalOptions } from './options.ts';

const HELP = `
Runs until it is told to stop (Ctrl-C, SIGTERM): keeps this host as the
manifests say. Looks whenever they change, tries again what failed, and repairs
what moved away. What is mounted stays mounted when it ends.

With -f it follows one folder, and needs no configuration. Logs JSON lines to
standard output.

Exit codes: 0 stopped as asked; 1 could not start, or failed.

Examples:
  cimlet agent -f manifests/
  cimlet agent --config /etc/cimlet/cimlet.yaml`;

export interface AgentCommandOptions extends GlobalOptions {
  config?: string;
  filename?: string;
  stopTimeout: string;
  logFile?: string;
  /** Which service of Windows this process is. */
  service?: string;
}

export const addAgent: AddCommand = (program, context) => {
  program
    .command('agent')
    .description('keep the host as the manifests say, until stopped')
    .addOption(configOption())
    .addOption(new Option('-f, --filename <folder>', 'the folder with the manifests').conflicts('config'))
    .option(
      '--stop-timeout <duration>',
      'how long to wait for what is running when stopped',
      checkDurationOption,
      '30s',
    )
    .option('--log-file <file>', 'log to this file, turned over at 10 MiB, rather than to standard output')
    .addOption(new Option('--service <name>').hideHelp())
    .addHelpText('after', HELP)
    .action(async (_options, command: Command) => {
      const service = await enterService(context, command.opts<AgentCommandOptions>());
      let exitCode = 1;
      try {
        // What only the agent needs takes a while to load.
        const { runAgent } = await import('./run-agent.ts');
        await runAgent(context, command, service);
        exitCode = 0;
      } finally {
        service?.end(exitCode);
      }
    });
};

/** First of all: the service manager gives up on a process that doesn't answer soon. */
async function enterService(
  { services }: CliContext,
  { service }: AgentCommandOptions,
): Promise<ServiceProcess | undefined> {
  if (service === undefined) return undefined;
  if (services.service?.enter !== undefined) return services.service.enter(service);
  throw new CimletError('unsupported-host', 'agent: --service is for services of Windows');
}
