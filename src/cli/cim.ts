/** `cimlet cim ls|stat|cat|tree|verify|inspect|diff` */

import { Argument, type Command } from 'commander';
import { inspectCim } from '../cim/inspect.ts';
import { type CimFault, verifyCim } from '../cim/verify.ts';
import { CimletError } from '../errors.ts';
import { addDiff } from './cim-diff.ts';
import { childrenOf, dataOf, find, longLines, nameOf, statLines, treeLines, walk } from './cim-entries.ts';
import { addImageCommand, type ImageOptions, openOptions, withCim } from './cim-image.ts';
import type { AddCommand, CliContext } from './context.ts';
import { formatData, isDataFormat } from './output.ts';
import { plural, printable } from './text.ts';

const HELP = `
Paths inside a CIM are written with / or \\, and compared without case.

Examples:
  cimlet cim tree layer.cim Files/Windows
  cimlet cim cat layer.cim 'Files/a.txt:Zone.Identifier' | xxd
  cimlet cim verify layer.cim
  cimlet cim ls merged.bcim --source top.bcim --source base.bcim`;

export const addCim: AddCommand = (program, context) => {
  const cim = program
    .command('cim')
    .description('look into CIM files: list, read, verify, compare')
    .addHelpText('after', HELP);
  addList(cim, context);
  addStat(cim, context);
  addCat(cim, context);
  addTree(cim, context);
  addVerify(cim, context);
  addInspect(cim, context);
  addDiff(cim, context);
};

function addList(cim: Command, context: CliContext): void {
  addImageCommand(cim, 'ls', 'list a directory of a CIM')
    .addArgument(new Argument('[path]', 'directory or file in it').default('', 'its root'))
    .option('-l, --long', 'with attributes, size and time')
    .action(async (file, path, _options, command) => {
      const options = command.optsWithGlobals() as ImageOptions & { long?: boolean };
      const { long, output } = options;
      await withCim(file, options, async (reader) => {
        const found = find(reader, file, path);
        const entries = found.info.isDirectory ? [...childrenOf(reader, found)] : [found];
        if (isDataFormat(output)) {
          context.terminal.print(formatData(entries.map(dataOf), output));
          return;
        }
        await printAll(context, long ? longLines(entries) : entries.map(nameOf));
      });
    });
}

function addStat(cim: Command, context: CliContext): void {
  const { terminal } = context;
  addImageCommand(cim, 'stat', 'print what a CIM holds about one file')
    .addArgument(new Argument('[path]', 'file or directory in it').default('', 'its root'))
    .action(async (file, path, _options, command) => {
      const options = command.optsWithGlobals() as ImageOptions;
      const { output } = options;
      await withCim(file, options, async (reader) => {
        const found = find(reader, file, path);
        const streams = [...reader.streams(found.info.id)];
        const data = { ...dataOf(found), streams };
        if (isDataFormat(output)) terminal.print(formatData(data, output));
        else terminal.print(statLines(data));
      });
    });
}

function addCat(cim: Command, context: CliContext): void {
  addImageCommand(cim, 'cat', 'write the bytes of a file, or of path:stream, to standard output')
    .argument('<path>', 'file in it; FILE:STREAM for an alternate stream')
    .action(async (file, path: string, _options, command) => {
      await withCim(file, command.optsWithGlobals() as ImageOptions, async (reader) => {
        const [name = '', stream] = path.split(':', 2);
        const { info } = find(reader, file, name);
        if (info.isDirectory && stream === undefined) {
          throw new CimletError('failed-precondition', `cat ${path} in ${file}: is a directory`);
        }
        for (const chunk of reader.streamChunks(info.id, stream)) {
          if (context.terminal.closed) return;
          await context.terminal.write(chunk);
        }
      });
    });
}

function addTree(cim: Command, context: CliContext): void {
  addImageCommand(cim, 'tree', 'draw a directory of a CIM and all below it')
    .addArgument(new Argument('[path]', 'directory in it').default('', 'its root'))
    .action(async (file, path, _options, command) => {
      const options = command.optsWithGlobals() as ImageOptions;
      const { output } = options;
      await withCim(file, options, async (reader) => {
        const found = find(reader, file, path);
        if (isDataFormat(output)) {
          context.terminal.print(formatData([...walk(reader, found)].map(dataOf), output));
          return;
        }
        await printAll(context, treeLines(reader, found));
      });
    });
}

function addVerify(cim: Command, context: CliContext): void {
  const { terminal } = context;
  addImageCommand(cim, 'verify', 'check every structure of a CIM; exits with 1 when there are faults').action(
    (file, _options, command) => {
      const options = command.optsWithGlobals() as ImageOptions;
      const { output } = options;
      const faults = verifyCim(file, openOptions(options));
      context.exitCode = faults.length > 0 ? 1 : 0;
      if (isDataFormat(output)) {
        terminal.print(formatData({ file, faults }, output));
        return;
      }
      for (const fault of faults) {
        terminal.print(printable(`${fault.file}: offset 0x${fault.offset.toString(16)}: ${fault.message}`));
      }
      if (faults.length === 0) terminal.print(terminal.paint('green', `${printable(file)}: no faults`));
      else terminal.printError(terminal.paintError('red', howMany(faults)));
    },
  );
}

function howMany(faults: readonly CimFault[]): string {
  const { unlisted } = faults.at(-1) ?? {};
  if (unlisted === undefined) return plural(faults.length, 'fault');
  return `${plural(faults.length - 1, 'fault')} shown, ${unlisted} more`;
}

function addInspect(cim: Command, context: CliContext): void {
  const { terminal } = context;
  addImageCommand(cim, 'inspect', 'print the header of a CIM, its GUIDs, files and counts').action(
    (file, _options, command) => {
      const options = command.optsWithGlobals() as ImageOptions;
      const { output } = options;
      const facts = inspectCim(file, openOptions(options));
      terminal.print(formatData(facts, output === 'json' ? 'json' : 'yaml'));
    },
  );
}

const LINES_AT_ONCE = 500;

/** Prints lines as they come, and stops when nobody reads them any more. */
async function printAll({ terminal }: CliContext, lines: Iterable<string>): Promise<void> {
  let batch: string[] = [];
  for (const line of lines) {
    batch.push(line);
    if (batch.length < LINES_AT_ONCE) continue;
    if (terminal.closed) return;
    await terminal.write(`${batch.join('\n')}\n`);
    batch = [];
  }
  if (batch.length > 0) await terminal.write(`${batch.join('\n')}\n`);
}
