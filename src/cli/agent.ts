/** `cimlet agent` */

import { Option } from 'commander';
import { configOption } from './configuration.ts';
import type { AddCommand } from './context.ts';
import type { GlobalOptions } from './options.ts';

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
}

export const addAgent: AddCommand = (program, context) => {
  program
    .command('agent')
    .description('keep the host as the manifests say, until stopped')
    .addOption(configOption())
    .addOption(new Option('-f, --filename <folder>', 'the folder with the manifests').conflicts('config'))
    .option('--stop-timeout <duration>', 'how long to wait for what is running when stopped', '30s')
    .addHelpText('after', HELP)
    .action(async (_options, command) => {
      // What only the agent needs takes a while to load.
      const { runAgent } = await import('./run-agent.ts');
      await runAgent(context, command);
    });
};
