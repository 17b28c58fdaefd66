/** The command line as a whole: its commands, how they fail, and what the process exits with. */

import { type Stats, statSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { CimletError, classify, isErrorCode } from '../errors.ts';
import { addAgent } from './agent.ts';
import { addApply } from './apply.ts';
import { addCim } from './cim.ts';
import type { AddCommand, CliContext, Services } from './context.ts';
import { addDelete } from './delete.ts';
import { addDescribe } from './describe.ts';
import { addDoctor } from './doctor.ts';
import { addEvents } from './events.ts';
import { addGc } from './gc.ts';
import { addGet } from './get.ts';
import { addImage } from './image.ts';
import { addLayer } from './layer.ts';
import { addObserve } from './observe.ts';
import { addGlobalOptions, type GlobalOptions } from './options.ts';
import { addPlan } from './plan.ts';
import { renderError, renderHint } from './render-error.ts';
import { addService } from './service.ts';
import { addSnapshot } from './snapshot.ts';
import { addReconcile, addResume, addSuspend } from './steer.ts';
import { openTerminal } from './terminal.ts';
import { addValidate } from './validate.ts';
import { addVersion } from './version.ts';
import { addVhd } from './vhd.ts';
import { addWait } from './wait.ts';

const COMMANDS: AddCommand[] = [
  addValidate,
  addPlan,
  addApply,
  addDelete,
  addAgent,
  addService,
  addReconcile,
  addSuspend,
  addResume,
  addWait,
  addGet,
  addDescribe,
  addEvents,
  addObserve,
  addImage,
  addGc,
  addLayer,
  addSnapshot,
  addCim,
  addVhd,
  addDoctor,
  addVersion,
];

const EXAMPLES = `
Examples:
  cimlet plan -f manifests/            show what would be done, and do nothing
  cimlet apply -f manifests/ --yes     do it
  cimlet get all                       see what is there
  cimlet doctor                        see what this host can do`;

export interface RunOptions {
  /** Without the program's own name. */
  argv: readonly string[];
  env: NodeJS.ProcessEnv;
  version: string;
  services: Services;
}

/** Runs one command line to its end. Resolves to the exit code; never rejects. */
export async function runCli({ argv, env, version, services }: RunOptions): Promise<number> {
  const terminal = openTerminal({ env, color: !argv.includes('--no-color') });
  const debug = Boolean(env.CIMLET_DEBUG);
  const context: CliContext = { terminal, version, services, debug, env, exitCode: 0 };
  const failed = exitCodeOfErrors(argv);
  const program = createProgram(context);
  try {
    if (argv.length === 0) program.outputHelp();
    else await program.parseAsync([...argv], { from: 'user' });
    return context.exitCode;
  } catch (error) {
    // Commander has printed its message by now.
    if (error instanceof CommanderError) {
      const hint = error.code === 'commander.excessArguments' ? hintAtArguments(program, argv) : undefined;
      if (hint !== undefined) terminal.printError(renderHint(hint, terminal.paintError));
      return error.exitCode === 0 ? 0 : failed;
    }
    terminal.printError(renderError(error, terminal.paintError, debug));
    return isErrorCode(error, 'cancelled') && context.exitCode !== 0 ? context.exitCode : failed;
  }
}

function createProgram(context: CliContext): Command {
  const { terminal, version, services } = context;
  const program = new Command('cimlet')
    .description(
      'Declares container layers on this machine: reads manifests, shows how the\nhost differs from them, and makes it match.',
    )
    .version(`cimlet ${version}`, '--version', 'print the version')
    .helpOption('-h, --help', 'show help')
    .helpCommand('help [command]', 'show help for a command')
    .addHelpText('after', EXAMPLES)
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      writeOut: (text) => terminal.print(text.replace(/\n$/, '')),
      writeErr: (text) => terminal.printError(text.replace(/\n$/, '')),
      getOutHelpWidth: () => terminal.width,
      getErrHelpWidth: () => terminal.width,
      outputError: (text, write) => write(text.replace(/^error:/, terminal.paintError('red', 'error:'))),
    })
    .exitOverride();
  addGlobalOptions(program, services.defaultRoot);
  program.hook('preAction', () => requireDirectory(program.opts<GlobalOptions>().root));
  for (const add of COMMANDS) add(program, context);
  return program;
}

/** A root that isn't there yet is made by what writes to it. */
function requireDirectory(root: string): void {
  let stats: Stats | undefined;
  try {
    stats = statSync(root, { throwIfNoEntry: false });
  } catch (error) {
    throw classify(error, `look at root ${root}`);
  }
  if (stats === undefined || stats.isDirectory()) return;
  throw new CimletError('failed-precondition', `root ${root} is no directory`, {
    hint: 'name another one with --root or CIMLET_ROOT',
  });
}

/** Most often manifests, without the flag that names them. */
function hintAtArguments(program: Command, argv: readonly string[]): string | undefined {
  const command = program.commands.find((each) => argv.includes(each.name()));
  const takesManifests = command?.options.some(({ long }) => long === '--filename');
  return takesManifests
    ? `manifests are named with -f, for example: cimlet ${command?.name()} -f manifests/`
    : undefined;
}

/**
 * `plan --exit-code` and `cim diff` keep 1 for "there are differences", as diff does: errors are 2 there and 1
 * everywhere else.
 */
function exitCodeOfErrors(argv: readonly string[]): number {
  const cim = argv.indexOf('cim');
  return argv.includes('--exit-code') || (cim >= 0 && argv[cim + 1] === 'diff') ? 2 : 1;
}
