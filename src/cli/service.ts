/** `cimlet service install|uninstall|status` */

import { resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { CimletError } from '../errors.ts';
import { timerMs } from '../reconciler/retry-policy.ts';
import type { ServiceDefinition } from '../service/service-manager.ts';
import type { Configuration } from './agent-settings.ts';
import { applyConfig } from './configuration.ts';
import type { AddCommand, CliContext, ServiceSupport } from './context.ts';
import { checkDurationOption, type GlobalOptions } from './options.ts';
import { formatData, isDataFormat } from './output.ts';
import { interruptible } from './signals.ts';

const HELP = `
The agent as a service of this system: started with it, and again when it
fails. What it mounted stays when it is stopped or uninstalled.

Examples:
  cimlet service install --config /etc/cimlet/cimlet.yaml --dry-run
  cimlet service install --config /etc/cimlet/cimlet.yaml
  cimlet service status`;

interface ServiceOptions extends GlobalOptions {
  name: string;
}

interface InstallOptions extends ServiceOptions {
  config?: string;
  filename?: string;
  stopTimeout: string;
  dryRun?: boolean;
}

export const addService: AddCommand = (program, context) => {
  const service = program
    .command('service')
    .description('run the agent as a service of this system')
    .addHelpText('after', HELP);
  addInstall(service, context);
  addUninstall(service, context);
  addStatus(service, context);
};

const nameOption = () =>
  new Option('--name <name>', 'of the service').default('cimlet').argParser((text) => {
    if (/^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/.test(text)) return text;
    throw new InvalidArgumentError('Name it with letters, digits, "-", "_" and ".".');
  });

function addInstall(service: Command, context: CliContext): void {
  const { terminal } = context;
  service
    .command('install')
    .description('install the agent, or what is installed anew, and start it')
    .addOption(new Option('--config <file>', 'configuration, cimlet.yaml').env('CIMLET_CONFIG'))
    .addOption(new Option('-f, --filename <folder>', 'the folder with the manifests').conflicts('config'))
    .option('--stop-timeout <duration>', 'how long it may take to stop', checkDurationOption, '30s')
    .addOption(nameOption())
    .option('--dry-run', 'print what would be installed, and do nothing')
    .action(async (_options, command: Command) => {
      const options = command.optsWithGlobals<InstallOptions>();
      const { program, open } = requireSupport(context);
      const definition = await defineService(options, program, command, context);
      const manager = await open();
      if (options.dryRun === true) return terminal.print(manager.describe(definition).replace(/\n$/, ''));
      terminal.print(await interruptible(context, (signal) => manager.install(definition, signal)));
    });
}

function addUninstall(service: Command, context: CliContext): void {
  service
    .command('uninstall')
    .description('stop the agent, and remove its service')
    .addOption(nameOption())
    .action(async (_options, command: Command) => {
      const { name } = command.optsWithGlobals<ServiceOptions>();
      const manager = await requireSupport(context).open();
      context.terminal.print(await interruptible(context, (signal) => manager.uninstall(name, signal)));
    });
}

function addStatus(service: Command, context: CliContext): void {
  service
    .command('status')
    .description('whether it is installed and runs; exits with 0 when it runs, else with 1')
    .addOption(nameOption())
    .action(async (_options, command: Command) => {
      const { name, output } = command.optsWithGlobals<ServiceOptions>();
      const manager = await requireSupport(context).open();
      const status = await interruptible(context, (signal) => manager.status(name, signal));
      context.exitCode = status.state === 'running' ? 0 : 1;
      if (isDataFormat(output)) context.terminal.print(formatData({ name, ...status }, output));
      else context.terminal.print(`${name}: ${status.state}; ${status.detail}`);
    });
}

function requireSupport({ services }: CliContext): ServiceSupport {
  if (services.service !== undefined) return services.service;
  throw new CimletError('unsupported-host', 'cimlet knows no service manager of this system', {
    hint: 'have whatever starts programs with this system run cimlet agent',
  });
}

/** A service starts in no folder of ours and without our variables: everything is said in full. */
async function defineService(
  options: InstallOptions,
  program: readonly [string, ...string[]],
  command: Command,
  context: CliContext,
): Promise<ServiceDefinition> {
  const { name, config, filename, stopTimeout, registryConfig } = options;
  const { openConfiguration } = await import('./agent-settings.ts');
  const loaded = await openConfiguration(options);
  const applied = applyConfig(options, loaded, command, context);
  await refuseUnusable(applied, loaded, context);
  const { root, host } = applied;
  const isGiven = (option: string) => command.getOptionValueSourceWithGlobals(option) !== 'default';
  const flags = [
    ...(config !== undefined ? ['--config', resolve(config)] : ['-f', resolve(filename ?? '')]),
    ...(isGiven('root') || config === undefined ? ['--root', root] : []),
    ...(isGiven('host') ? ['--host', host] : []),
    ...(registryConfig === undefined ? [] : ['--registry-config', registryConfig]),
    ...(isGiven('stopTimeout') ? ['--stop-timeout', stopTimeout] : []),
  ];
  return { name, command: [...program, 'agent', ...flags], root, stopTimeoutMs: timerMs(stopTimeout) };
}

/** What would keep the agent from starting is said here rather than again and again where nobody looks. */
async function refuseUnusable(
  options: GlobalOptions,
  loaded: Configuration,
  context: CliContext,
): Promise<void> {
  const { openSettings } = await import('./agent-settings.ts');
  const { services } = context;
  services.openHost(options.host, options.root);
  services.agentAddress(options.root);
  await openSettings(loaded, options.root);
}
