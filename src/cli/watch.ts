/** `--watch`: what the agent of a root tells, printed as it comes, until the agent or whoever watches ends it. */

import { CimletError, isErrorCode } from '../errors.ts';
import { agentOf, type WatchEvent } from './agent-client.ts';
import type { CliContext } from './context.ts';
import type { GlobalOptions } from './options.ts';
import { formatStreamed, isDataFormat } from './output.ts';
import { interruptible } from './signals.ts';
import { type Column, fitTable, type Table } from './table.ts';

const READER_LOOKED_AT_MS = 500;

export interface Watch<Row> {
  /** For messages: `get`. */
  command: string;
  /** Of the API. */
  path: string;
  isWanted(row: Row): boolean;
  columns: Column<Row>[];
  /** As a row when it is gone; undefined: that isn't told. */
  gone?: ((row: Row) => Row) | undefined;
}

/**
 * Prints a table of what is there and a line for each change; as data, an event for each. Throws `failed-precondition`
 * when no agent runs, `unavailable` when it ends.
 */
export async function watchAgent<Row>(
  context: CliContext,
  options: GlobalOptions,
  watch: Watch<Row>,
): Promise<void> {
  const { terminal } = context;
  const client = await agentOf(context, options);
  if (client === undefined) {
    throw new CimletError(
      'failed-precondition',
      `${watch.command} --watch: no agent runs on ${options.root}`,
      {
        hint: 'start one with cimlet agent; without --watch no agent is needed',
      },
    );
  }
  const print = isDataFormat(options.output)
    ? dataPrinter(context, options, watch)
    : tablePrinter(context, options, watch);
  await interruptible(context, async (interrupted) => {
    const reader = watchReader(context);
    const signal = AbortSignal.any([interrupted, reader.gone]);
    try {
      for await (const event of await client.watch(watch.path, signal)) {
        print(event);
        if (terminal.closed) return;
      }
    } catch (error) {
      if (isErrorCode(error, 'cancelled')) return;
      throw error;
    } finally {
      reader.forget();
    }
    if (signal.aborted) return;
    throw new CimletError('unavailable', `${watch.command} --watch: the agent of ${options.root} has ended`, {
      hint: 'what is on the host stays as it is; see the log of the agent, and start it again',
    });
  });
}

/** `gone` is aborted soon after who reads has seen enough (`| head`), also when there is nothing to be told. */
function watchReader({ services: { isReaderGone } }: CliContext): { gone: AbortSignal; forget(): void } {
  const gone = new AbortController();
  if (isReaderGone === undefined) return { gone: gone.signal, forget: () => undefined };
  const look = async () => {
    try {
      if (await isReaderGone()) gone.abort();
    } catch (error) {
      clearInterval(timer);
      // The next write tells it as well.
      if (!isErrorCode(error, 'unsupported-host')) throw error;
    }
  };
  const timer = setInterval(() => void look(), READER_LOOKED_AT_MS);
  return { gone: gone.signal, forget: () => clearInterval(timer) };
}

type Printer = (event: WatchEvent) => void;

function dataPrinter<Row>({ terminal }: CliContext, { output }: GlobalOptions, watch: Watch<Row>): Printer {
  return ({ type, data }) => {
    const isAboutItems = type !== 'reset' && type !== 'synced';
    if (!isAboutItems || !watch.isWanted(data as Row) || !isDataFormat(output)) return;
    terminal.print(formatStreamed({ type, object: data }, output));
  };
}

function tablePrinter<Row>({ terminal }: CliContext, { output }: GlobalOptions, watch: Watch<Row>): Printer {
  const width = output === 'wide' ? Number.POSITIVE_INFINITY : terminal.tableWidth;
  let table: Table<Row> | undefined;
  /** What is there, until all of it was told. */
  let listed: Row[] | undefined;
  const show = (rows: readonly Row[]) => {
    if (rows.length === 0) return;
    if (table === undefined) {
      table = fitTable(rows, watch.columns, width, terminal.paint);
      terminal.print(table.headings);
    }
    terminal.print(rows.flatMap(table.lines));
  };
  return ({ type, data }) => {
    const row = data as Row;
    if (type === 'reset') listed = [];
    else if (type === 'synced') {
      show(listed ?? []);
      listed = undefined;
    } else if (watch.isWanted(row)) {
      const shown = type === 'deleted' ? watch.gone?.(row) : row;
      if (shown === undefined) return;
      if (listed === undefined) show([shown]);
      else listed.push(shown);
    }
  };
}
