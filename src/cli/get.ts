/** `cimlet get` */

import { CimletError } from '../errors.ts';
import { type Item, pathOf } from '../server/items.ts';
import type { AddCommand, CliContext } from './context.ts';
import { matchesWanted, nothingFoundIn, parseWanted, selectItems, type Wanted } from './find-status.ts';
import { withInventory } from './inventory.ts';
import type { GlobalOptions } from './options.ts';
import { formatData, isDataFormat } from './output.ts';
import { itemColumns, itemTable, type Layout } from './render-items.ts';
import { interruptible } from './signals.ts';
import { watchAgent } from './watch.ts';

const HELP = `
What was applied to this root, held against what the host has. Reads only.
-o wide adds columns; -o json and -o yaml print everything. With --watch, the
running agent's changes as they happen, a line for each. Sources are those
of a running agent, and not among all.

Examples:
  cimlet get mounts
  cimlet get mounts --watch
  cimlet get chain app -o yaml
  cimlet get all`;

export const addGet: AddCommand = (program, context) => {
  const { terminal } = context;
  program
    .command('get')
    .description('list images, chains, mounts, snapshots and sources')
    .argument('<kind>', 'images, chains, mounts, snapshots, sources or all')
    .argument('[name]', 'only this one')
    .option('-w, --watch', 'then print what changes; needs a running agent')
    .addHelpText('after', HELP)
    .action(async (word: string, name: string | undefined, _options, command) => {
      const options = command.optsWithGlobals() as GlobalOptions & { watch?: boolean };
      const wanted = parseWanted(word, name);
      if (options.watch === true) return watchItems(context, options, wanted);
      const items = await interruptible(context, (signal) =>
        withInventory(context, options, ({ list }) => list(wanted.sections, signal)),
      );
      const found = selectItems(items, wanted);
      const rows = [...found.resources, ...found.snapshots, ...found.sources];
      if (isDataFormat(options.output)) {
        terminal.print(formatData({ items: rows }, options.output));
        return;
      }
      const layout = layoutOf(context, options, wanted);
      const tables = wanted.sections.map((section) =>
        itemTable(
          rows.filter(({ kind }) => kind === section),
          section,
          layout,
        ),
      );
      const shown = tables.filter((lines) => lines.length > 0);
      if (shown.length === 0) terminal.printError(nothingFoundIn(options.root));
      shown.forEach((lines, index) => {
        if (index > 0) terminal.print('');
        terminal.print(lines);
      });
    });
};

function layoutOf({ terminal }: CliContext, { output }: GlobalOptions, { sections }: Wanted): Layout {
  return {
    width: output === 'wide' ? Number.POSITIVE_INFINITY : terminal.tableWidth,
    paint: terminal.paint,
    wide: output === 'wide',
    qualified: sections.length > 1,
    // A watch goes on for long.
    get now() {
      return Date.now();
    },
  };
}

async function watchItems(context: CliContext, options: GlobalOptions, wanted: Wanted): Promise<void> {
  const [section, another] = wanted.sections;
  if (section === undefined || another !== undefined) {
    throw new CimletError('failed-precondition', 'get --watch: one kind can be watched at a time', {
      hint: 'name images, chains, mounts, snapshots or sources',
    });
  }
  await watchAgent<Item>(context, options, {
    command: 'get',
    path: pathOf(section),
    isWanted: (item) => matchesWanted(item, wanted),
    columns: itemColumns(section, layoutOf(context, options, wanted)),
    gone: (item) => ({ ...item, status: { ...item.status, ready: 'False', reason: 'Deleted' } }) as Item,
  });
}
