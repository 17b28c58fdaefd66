/** `cimlet get` */

import type { AddCommand } from './context.ts';
import { parseWanted, selectItems } from './find-status.ts';
import { withInventory } from './inventory.ts';
import type { GlobalOptions } from './options.ts';
import { formatData, isDataFormat } from './output.ts';
import { itemTable, type Layout } from './render-items.ts';
import { interruptible } from './signals.ts';

const HELP = `
What was applied to this root, held against what the host has. Reads only.
-o wide adds columns; -o json and -o yaml print everything.

Examples:
  cimlet get mounts
  cimlet get chain app -o yaml
  cimlet get all`;

export const addGet: AddCommand = (program, context) => {
  const { terminal } = context;
  program
    .command('get')
    .description('list images, chains, mounts and snapshots')
    .argument('<kind>', 'images, chains, mounts, snapshots or all')
    .argument('[name]', 'only this one')
    .addHelpText('after', HELP)
    .action(async (word: string, name: string | undefined, _options, command) => {
      const options = command.optsWithGlobals() as GlobalOptions;
      const wanted = parseWanted(word, name);
      const items = await interruptible(context, (signal) =>
        withInventory(context, options, ({ list }) => list(wanted.sections, signal)),
      );
      const found = selectItems(items, wanted);
      const rows = [...found.resources, ...found.snapshots];
      if (isDataFormat(options.output)) {
        terminal.print(formatData({ items: rows }, options.output));
        return;
      }
      const layout: Layout = {
        width: options.output === 'wide' ? Number.POSITIVE_INFINITY : terminal.width,
        paint: terminal.paint,
        wide: options.output === 'wide',
        qualified: wanted.sections.length > 1,
        now: Date.now(),
      };
      const tables = wanted.sections.map((section) =>
        itemTable(
          rows.filter(({ kind }) => kind === section),
          section,
          layout,
        ),
      );
      const shown = tables.filter((lines) => lines.length > 0);
      if (shown.length === 0) terminal.printError(`Nothing found in ${options.root}.`);
      shown.forEach((lines, index) => {
        if (index > 0) terminal.print('');
        terminal.print(lines);
      });
    });
};
