/** `cimlet events` */

import { Argument } from 'commander';
import type { EventRecord } from '../state/records.ts';
import type { AddCommand } from './context.ts';
import { eventsPath, withInventory } from './inventory.ts';
import { type GlobalOptions, parseSubject } from './options.ts';
import { formatData, isDataFormat } from './output.ts';
import { interruptible } from './signals.ts';
import { type Column, renderTable } from './table.ts';
import { formatAge, shortenDigests } from './text.ts';
import { watchAgent } from './watch.ts';

const HELP = `
What was done and what went wrong, the latest last. The same event again is
counted, not repeated. Reads only, beside a running agent too. With --watch, the
running agent's as they happen.

Examples:
  cimlet events
  cimlet events mount/app -o json
  cimlet events --warnings --watch`;

interface EventOptions extends GlobalOptions {
  warnings?: boolean;
  watch?: boolean;
}

export const addEvents: AddCommand = (program, context) => {
  const { terminal } = context;
  program
    .command('events')
    .description('list what happened')
    .addArgument(new Argument('[kind/name]', 'of this resource or source only').argParser(parseSubject))
    .option('--warnings', 'only what went wrong')
    .option('-w, --watch', 'then print what happens; needs a running agent')
    .addHelpText('after', HELP)
    .action(async (key: string | undefined, _options, command) => {
      const options = command.optsWithGlobals() as EventOptions;
      const isWanted = ({ type }: EventRecord) => options.warnings !== true || type === 'Warning';
      if (options.watch === true)
        return watchAgent(context, options, { command: 'events', path: eventsPath(key), isWanted, columns });
      const events = await interruptible(context, (signal) =>
        withInventory(context, options, (inventory) => inventory.events(key, signal)),
      );
      const items = events.filter(isWanted).reverse();
      if (isDataFormat(options.output)) return terminal.print(formatData({ items }, options.output));
      if (items.length === 0) return terminal.printError(`No events in ${options.root}.`);
      const width = options.output === 'wide' ? Number.POSITIVE_INFINITY : terminal.tableWidth;
      terminal.print(renderTable(items, columns, width, terminal.paint));
    });
};

const columns: Column<EventRecord>[] = [
  { heading: 'LAST', value: ({ lastTime }) => formatAge(Date.now() - Date.parse(lastTime)) },
  {
    heading: 'TYPE',
    value: ({ type }) => type,
    paint: (text, { type }, paint) => (type === 'Warning' ? paint('yellow', text) : text),
  },
  { heading: 'REASON', value: ({ reason }) => reason },
  { heading: 'OBJECT', value: ({ key }) => objectName(key) },
  { heading: 'COUNT', value: ({ count }) => String(count) },
  { heading: 'MESSAGE', value: ({ message }) => shortenDigests(message), wraps: true },
];

/** As `get`, `describe` and plans call it: a snapshot or merged CIM by the first digits of its chain ID. */
function objectName(key: string): string {
  return shortenDigests(key).replace(/^(Snapshot|Merge)\/\w+\/sha256:/, '$1/');
}
