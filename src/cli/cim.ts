/** `cimlet cim ls|stat|cat|tree|verify|inspect|diff` */

import { type Command, InvalidArgumentError } from 'commander';
import { inspectCim } from '../cim/inspect.ts';
import type { OpenCimOptions } from '../cim/open-image.ts';
import { type CimReader, openCim } from '../cim/reader.ts';
import type { DirectoryEntry, FileInfo, LayerMark } from '../cim/types.ts';
import { type CimFault, verifyCim } from '../cim/verify.ts';
import { CimletError, isErrorCode } from '../errors.ts';
import { addDiff } from './cim-diff.ts';
import type { AddCommand, CliContext } from './context.ts';
import type { GlobalOptions } from './options.ts';
import { formatData, isDataFormat } from './output.ts';
import {
  attributeNames,
  attributesOf,
  formatFileTime,
  formatMode,
  formatReparseTag,
  reparseTarget,
} from './render-cim.ts';
import { formatBytes, padStart, plural, printable } from './text.ts';

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

interface ImageOptions extends GlobalOptions {
  source?: string[];
  rootHash?: string;
}

/** A subcommand about one image, which may lie in a container and need the containers it was merged from. */
function addImageCommand(cim: Command, name: string, description: string): Command {
  return cim
    .command(name)
    .description(description)
    .argument('<file.cim>', 'the image; in a container FILE.bcim/NAME.cim or /dev/X/NAME.cim')
    .option('--source <file>', 'what a merged image was made of, topmost first; repeat it', collect)
    .option('--root-hash <sha256:...>', 'refuse an image that is not sealed with it', parseRootHash);
}

function collect(value: string, earlier: string[] = []): string[] {
  return [...earlier, value];
}

function parseRootHash(text: string): string {
  if (/^sha256:[0-9a-f]{64}$/.test(text)) return text;
  throw new InvalidArgumentError('A root hash is sha256: and 64 hexadecimal digits in lower case.');
}

function openOptions({ source, rootHash }: ImageOptions): OpenCimOptions {
  return { sources: source, rootHash };
}

interface Entry {
  path: string;
  name: string;
  info: FileInfo;
}

function addList(cim: Command, context: CliContext): void {
  addImageCommand(cim, 'ls', 'list a directory of a CIM')
    .argument('[path]', 'directory or file in it', '')
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
    .argument('[path]', 'file or directory in it', '')
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
    .argument('[path]', 'directory in it', '')
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

async function withCim(
  file: string,
  options: ImageOptions,
  use: (reader: CimReader) => Promise<void>,
): Promise<void> {
  try {
    const reader = openCim(file, openOptions(options));
    try {
      await use(reader);
    } finally {
      reader.close();
    }
  } catch (error) {
    if (!isErrorCode(error, 'corrupt') || error.hint !== undefined) throw error;
    const hint = `cimlet cim verify ${file} lists all that is damaged; cimlet apply builds a sealed layer of a chain anew`;
    throw new CimletError('corrupt', error.message, { hint, cause: error });
  }
}

function find(reader: CimReader, file: string, path: string): Entry {
  const clean = path
    .split(/[\\/]+/)
    .filter(Boolean)
    .join('/');
  const id = clean === '' ? reader.root : reader.lookup(clean);
  if (id === undefined) throw new CimletError('not-found', `${file} holds no ${path}`);
  return { path: clean, name: clean.slice(clean.lastIndexOf('/') + 1), info: reader.stat(id) };
}

function* childrenOf(reader: CimReader, parent: Entry): Iterable<Entry> {
  for (const { name, id } of reader.entries(parent.info.id) as Iterable<DirectoryEntry>) {
    yield { path: parent.path === '' ? name : `${parent.path}/${name}`, name, info: reader.stat(id) };
  }
}

/** Everything about a file but its bytes; binary parts as hexadecimal. */
function dataOf({ path, name, info }: Entry) {
  const hex = (bytes: Uint8Array | undefined) => bytes && Buffer.from(bytes).toString('hex');
  return {
    path,
    name,
    id: info.id,
    type: info.isDirectory ? 'directory' : 'file',
    size: info.size,
    attributes: attributesOf(info),
    attributeNames: attributeNames(info),
    creationTime: formatFileTime(info.creationTime),
    lastWriteTime: formatFileTime(info.lastWriteTime),
    changeTime: formatFileTime(info.changeTime),
    lastAccessTime: formatFileTime(info.lastAccessTime),
    mark: info.mark === undefined ? undefined : describeMark(info.mark),
    reparseTag: info.reparseTag === 0 ? undefined : formatReparseTag(info.reparseTag),
    target: reparseTarget(info),
    reparseData: hex(info.reparseData),
    securityDescriptor: hex(info.securityDescriptor),
    extendedAttributes: hex(info.extendedAttributes),
  };
}

type FileData = ReturnType<typeof dataOf>;

function statLines(data: FileData & { streams: { name: string; size: number }[] }): string[] {
  const facts: [string, string | undefined][] = [
    ['Path', data.path === '' ? '/' : data.path],
    ['File ID', `0x${data.id.toString(16)}`],
    ['Type', data.type],
    ['Size', `${data.size} (${formatBytes(data.size)})`],
    ['Attributes', `0x${data.attributes.toString(16)} ${data.attributeNames.join(' ')}`.trimEnd()],
    ['Created', data.creationTime],
    ['Written', data.lastWriteTime],
    ['Changed', data.changeTime],
    ['Accessed', data.lastAccessTime],
    ['Mark', data.mark],
    ['Reparse tag', data.reparseTag],
    ['Target', data.target],
    ['Security descriptor', data.securityDescriptor],
    ['Extended attributes', data.extendedAttributes],
    ...data.streams.map(({ name, size }): [string, string] => ['Stream', `${name} (${formatBytes(size)})`]),
  ];
  return facts.flatMap(([label, value]) => (value ? [`${label}:`.padEnd(21) + printable(value)] : []));
}

function nameOf({ name, info }: Entry): string {
  return `${printable(name)}${info.isDirectory ? '/' : ''}`;
}

function longLines(entries: readonly Entry[]): string[] {
  const sizeWidth = entries.reduce((most, { info }) => Math.max(most, String(info.size).length), 1);
  return entries.map((entry) => {
    const { info } = entry;
    const size = padStart(info.isDirectory ? '-' : String(info.size), sizeWidth);
    return `${formatMode(info)}  ${size}  ${formatFileTime(info.lastWriteTime)}  ${nameOf(entry)}${arrowOf(info)}`;
  });
}

function arrowOf(info: FileInfo): string {
  const target = reparseTarget(info);
  const arrow = target === undefined ? '' : ` -> ${printable(target)}`;
  return info.mark === undefined ? arrow : `${arrow} (${printable(describeMark(info.mark))})`;
}

/** What an entry of a block CIM does to the layers below it. */
function describeMark(mark: LayerMark): string {
  return mark.kind === 'merge-link' ? `merge link to ${mark.target}` : mark.kind;
}

function* treeLines(reader: CimReader, top: Entry): Iterable<string> {
  const entries = [...walk(reader, top)];
  const last = lastOfTheirDirectory(entries);
  const depthOfTop = top.path === '' ? 0 : depthOf(top.path) + 1;
  const bars: string[] = [];
  let directories = 0;
  yield top.path === '' ? '/' : nameOf(top);
  for (const [index, entry] of entries.entries()) {
    const depth = depthOf(entry.path) - depthOfTop;
    bars.length = depth;
    yield `${bars.join('')}${last[index] ? '└── ' : '├── '}${nameOf(entry)}${arrowOf(entry.info)}`;
    bars.push(last[index] ? '    ' : '│   ');
    if (entry.info.isDirectory) directories++;
  }
  yield '';
  yield `${plural(directories, 'directory', 'directories')}, ${plural(entries.length - directories, 'file')}`;
}

function depthOf(path: string): number {
  return path.split('/').length - 1;
}

/** For entries in the order of a walk: is there none after it in its directory? */
function lastOfTheirDirectory(entries: readonly Entry[]): boolean[] {
  const seen: boolean[] = [];
  return entries
    .toReversed()
    .map(({ path }) => {
      const depth = depthOf(path);
      const isLast = seen[depth] !== true;
      seen.length = depth;
      seen[depth] = true;
      return isLast;
    })
    .toReversed();
}

function* walk(reader: CimReader, top: Entry): Iterable<Entry> {
  const prefix = top.path === '' ? '' : `${top.path}/`;
  for (const { name, id, path } of reader.walk(top.info.id)) {
    yield { path: prefix + path, name, info: reader.stat(id) };
  }
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
