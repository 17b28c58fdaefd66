/** `cimlet snapshot prepare|view|commit|rm|mounts|usage|label|ls` */

import { type Command, Option } from 'commander';
import { CimletError } from '../errors.ts';
import type { EffectContext, LayerFormat, ScratchOptions } from '../hosts/host.ts';
import { LAYER_FORMATS } from '../reconciler/import-layer.ts';
import { type NamedSnapshot, Snapshotter } from '../snapshots/snapshotter.ts';
import type { AddCommand, CliContext } from './context.ts';
import { type GlobalOptions, parseSizeOption } from './options.ts';
import { formatData, isDataFormat } from './output.ts';
import { withReader, withWriter } from './session.ts';
import { interruptible } from './signals.ts';
import { type Column, renderTable } from './table.ts';
import { formatBytes, plural, printable, shortenDigests } from './text.ts';

const HELP = `
Names are unique. A parent is a committed snapshot, or a layer by its chain ID.

Examples:
  cimlet snapshot prepare work --parent base --size 2Gi
  cimlet snapshot mounts work -o json
  cimlet snapshot commit base-2 work --label team=web
  cimlet snapshot ls --filter kind==committed,labels.team==web
  cimlet snapshot rm base-2`;

interface SnapshotOptions extends GlobalOptions {
  parent?: string;
  format?: LayerFormat;
  label: Record<string, string>;
  size?: number;
  location?: string;
  shareWith?: string;
  unformatted?: boolean;
  utilityVm?: boolean;
  seal?: boolean;
  filter: string[];
}

export const addSnapshot: AddCommand = (program, context) => {
  const snapshot = program
    .command('snapshot')
    .description('make snapshots by hand: write to them, commit them to layers')
    .addHelpText('after', HELP);
  const labels = () =>
    new Option('--label <key=value>', 'a label, without =value one that is "true"; may be repeated')
      .argParser(addLabel)
      .default({}, 'none');

  snapshot
    .command('prepare')
    .description('make an active snapshot, which can be written to')
    .argument('<name>')
    .option('--parent <name>', 'committed snapshot, or chain ID of a layer; without, it begins empty')
    .addOption(
      new Option('--format <format>', 'of one without a parent; default: what the host prefers').choices(
        LAYER_FORMATS,
      ),
    )
    .option('--size <size>', 'the most that can be written, for example 2Gi', parseSizeOption)
    .option('--location <directory>', 'where that is kept, instead of the root')
    .option('--share-with <name>', 'active snapshot in whose scratch it is kept')
    .option('--unformatted', 'without a file system: a utility VM makes one; Windows only')
    .option('--utility-vm', 'with vm\\sandbox.vhdx, which a utility VM boots with; Windows only')
    .addOption(labels())
    .action((name: string, _options, command: Command) =>
      change(context, command, 'prepare', (snapshotter, effect, options) =>
        snapshotter.prepare(
          name,
          options.parent,
          { ...options, labels: options.label, scratch: scratchOf(options) },
          effect,
        ),
      ),
    );

  snapshot
    .command('view')
    .description('make a read-only snapshot')
    .argument('<name>')
    .requiredOption('--parent <name>', 'committed snapshot, or chain ID of a layer')
    .addOption(labels())
    .action((name: string, _options, command: Command) =>
      change(context, command, 'view', (snapshotter, effect, { parent = '', label }) =>
        snapshotter.view(name, parent, { labels: label }, effect),
      ),
    );

  snapshot
    .command('commit')
    .description('turn an active snapshot into a committed one, whose changes are a layer')
    .argument('<name>', 'of the committed one')
    .argument('<active>', 'which goes')
    .option('--seal', 'seal the layer, so that it has a root hash; BlockCIM only')
    .addOption(labels())
    .action((name: string, active: string, _options, command: Command) =>
      change(context, command, 'commit', (snapshotter, effect, { label, seal }) =>
        snapshotter.commit(name, active, { labels: label, seal }, effect),
      ),
    );

  snapshot
    .command('rm')
    .description('remove a snapshot that nothing is made of, and that is not mounted')
    .argument('<name>')
    .action((name: string, _options, command: Command) =>
      change(context, command, 'rm', async (snapshotter, effect) => {
        await snapshotter.remove(name, effect);
        return undefined;
      }),
    );

  snapshot
    .command('label')
    .description('set labels; one without a value goes')
    .argument('<name>')
    .argument('<key=value...>')
    .action((name: string, pairs: string[], _options, command: Command) =>
      change(context, command, 'label', async (snapshotter) => {
        const changed: Record<string, string> = Object.assign({}, ...pairs.map((pair) => labelOf(pair, '')));
        return snapshotter.update(
          name,
          changed,
          Object.keys(changed).map((key) => `labels.${key}`),
        );
      }),
    );

  addMounts(snapshot, context);
  addUsage(snapshot, context);
  addList(snapshot, context);
};

function addMounts(snapshot: Command, context: CliContext): void {
  snapshot
    .command('mounts')
    .description("how others would mount it, in containerd's words")
    .argument('<name>')
    .action(async (name: string, _options, command: Command) => {
      const options = command.optsWithGlobals<GlobalOptions>();
      const mounts = await look(context, options, (snapshotter, effect) => snapshotter.mounts(name, effect));
      if (isDataFormat(options.output)) context.terminal.print(formatData(mounts, options.output));
      else
        for (const { type, source, options: each } of mounts)
          context.terminal.print(printable(`${type} ${source} ${each.join(',')}`));
    });
}

function addUsage(snapshot: Command, context: CliContext): void {
  snapshot
    .command('usage')
    .description('what it takes itself, without its parents')
    .argument('<name>')
    .action(async (name: string, _options, command: Command) => {
      const options = command.optsWithGlobals<GlobalOptions>();
      const usage = await look(context, options, (snapshotter, effect) => snapshotter.usage(name, effect));
      if (isDataFormat(options.output)) context.terminal.print(formatData(usage, options.output));
      else context.terminal.print(`${formatBytes(usage.bytes)}, ${plural(usage.files, 'file')}`);
    });
}

const COLUMNS: readonly Column<NamedSnapshot>[] = [
  { heading: 'NAME', value: ({ name }) => name, shrinks: true },
  { heading: 'KIND', value: ({ kind, state }) => (state === 'ready' ? kind : `${kind} (${state})`) },
  { heading: 'PARENT', value: ({ parent }) => shortenDigests(parent ?? ''), shrinks: true },
  { heading: 'FORMAT', value: ({ format }) => format },
  {
    heading: 'LABELS',
    value: ({ labels }) =>
      Object.entries(labels)
        .map(([key, value]) => `${key}=${value}`)
        .join(','),
    shrinks: true,
  },
];

function addList(snapshot: Command, context: CliContext): void {
  snapshot
    .command('ls')
    .description('list the snapshots that have a name')
    .addOption(
      new Option(
        '--filter <filter>',
        'as containerd writes them: name==x, kind!=view, labels.k~=^v; several joined by commas, any of several --filter',
      )
        .argParser((text, all: string[]) => [...all, text])
        .default([], 'none'),
    )
    .action(async (_options, command: Command) => {
      const options = command.optsWithGlobals<SnapshotOptions>();
      const found = await look(context, options, async (snapshotter) => snapshotter.walk(options.filter));
      const { terminal } = context;
      if (isDataFormat(options.output)) return terminal.print(formatData(found, options.output));
      if (found.length === 0) return terminal.printError(`No snapshots with a name in ${options.root}.`);
      terminal.print(renderTable(found, COLUMNS, terminal.tableWidth, terminal.paint));
    });
}

/** Runs what changes the tree, after repairing what an earlier run left, and prints what came of it. */
async function change(
  context: CliContext,
  command: Command,
  verb: string,
  act: (
    snapshotter: Snapshotter,
    effect: EffectContext,
    options: SnapshotOptions,
  ) => Promise<NamedSnapshot | undefined>,
): Promise<void> {
  const options = command.optsWithGlobals<SnapshotOptions>();
  const { terminal, services } = context;
  const warn = (message: string) =>
    terminal.printError(`${terminal.paintError('yellow', 'warning:')} ${printable(message)}`);
  const result = await withWriter(context, options, `snapshot ${verb}`, async ({ state }) => {
    const snapshotter = new Snapshotter(await services.openHost(options.host, options.root), state);
    return interruptible(context, async (signal) => {
      const effect = { signal, warn };
      await snapshotter.repair(effect);
      return act(snapshotter, effect, options);
    });
  });
  if (result !== undefined && isDataFormat(options.output))
    terminal.print(formatData(result, options.output));
  else if (result !== undefined) terminal.print(printable(sentenceOf(result)));
}

function sentenceOf({ name, kind, format, chain }: NamedSnapshot): string {
  const top = chain.at(-1);
  if (kind === 'committed') return `${name}: ${format} layer ${top}`;
  return `${name}: ${kind} on ${top === undefined ? `nothing, ${format}` : `${format} ${shortenDigests(top)}`}`;
}

async function look<T>(
  context: CliContext,
  options: GlobalOptions,
  ask: (snapshotter: Snapshotter, effect: EffectContext) => Promise<T>,
): Promise<T> {
  return withReader(context, options, async ({ state }) => {
    const snapshotter = new Snapshotter(await context.services.openHost(options.host, options.root), state);
    return interruptible(context, (signal) => ask(snapshotter, { signal }));
  });
}

function scratchOf({ size, location, shareWith, unformatted, utilityVm }: SnapshotOptions): ScratchOptions {
  return {
    bytes: size,
    location,
    shareWith,
    unformatted,
    utilityVM: utilityVm,
  };
}

/** A label without a value is one that is set, as ctr has it. */
function addLabel(pair: string, all: Record<string, string>): Record<string, string> {
  return { ...all, ...labelOf(pair, 'true') };
}

function labelOf(pair: string, otherwise: string): Record<string, string> {
  const at = pair.indexOf('=');
  const key = at < 0 ? pair : pair.slice(0, at);
  if (key === '')
    throw new CimletError('invalid-manifest', `${JSON.stringify(pair)} is no label`, {
      hint: 'write key=value',
    });
  return { [key]: at < 0 ? otherwise : pair.slice(at + 1) };
}
