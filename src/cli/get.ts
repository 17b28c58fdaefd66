/** `cimlet get` */

import type { ResourceStatus, SnapshotStatus } from '../reconciler/status.ts';
import type { AddCommand } from './context.ts';
import {
  parseWanted,
  resourceData,
  type Section,
  selectStatus,
  snapshotData,
  summariseResource,
  summariseSnapshot,
} from './find-status.ts';
import type { GlobalOptions } from './options.ts';
import { formatData, isDataFormat } from './output.ts';
import { withReader } from './session.ts';
import { interruptible } from './signals.ts';
import { type Column, renderTable } from './table.ts';
import { formatAge, formatBytes, type Paint, shortenDigests } from './text.ts';

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
      const status = await withReader(context, options, ({ engine }) =>
        interruptible(context, engine.status),
      );
      const found = selectStatus(status, wanted);
      if (isDataFormat(options.output)) {
        const items = [...found.resources.map(resourceData), ...found.snapshots.map(snapshotData)];
        terminal.print(formatData({ items }, options.output));
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
        section === 'Snapshot'
          ? snapshotTable(found.snapshots, layout)
          : resourceTable(
              found.resources.filter(({ kind }) => kind === section),
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

export interface Layout {
  width: number;
  paint: Paint;
  wide: boolean;
  /** Names carry their kind: several kinds are listed at once. */
  qualified: boolean;
  /** Milliseconds since 1970. */
  now: number;
}

/** Of one kind; no lines for no rows. */
export function resourceTable(rows: readonly ResourceStatus[], kind: Section, layout: Layout): string[] {
  if (rows.length === 0) return [];
  const columns: Column<ResourceStatus>[] = [
    { heading: 'NAME', value: (row) => (layout.qualified ? row.key : row.name) },
    { heading: 'READY', value: (row) => summariseResource(row).ready, paint: paintReady },
    { heading: 'STATUS', value: (row) => summariseResource(row).reason },
    ...columnsOf(kind, layout.wide),
    { heading: 'AGE', value: (row) => age(row.createdAt, layout.now) },
    ...(layout.wide
      ? [
          {
            heading: 'MESSAGE',
            value: (row: ResourceStatus) => summariseResource(row).message,
            shrinks: true,
          },
        ]
      : []),
  ];
  return renderTable(rows, columns, layout.width, layout.paint);
}

function columnsOf(kind: Section, wide: boolean): Column<ResourceStatus>[] {
  switch (kind) {
    case 'Image':
      return [
        { heading: 'PLATFORM', value: ({ facts }) => platform(facts.image?.platform) },
        { heading: 'LAYERS', value: ({ facts }) => String(facts.image?.layers.length ?? '') },
        { heading: 'SIZE', value: ({ facts }) => size(facts.image?.bytes) },
        ...(wide
          ? [{ heading: 'DIGEST', value: ({ facts }: ResourceStatus) => facts.image?.digest ?? '' }]
          : []),
      ];
    case 'LayerChain':
      return [
        { heading: 'FORMAT', value: ({ facts }) => facts.chain?.format ?? '' },
        { heading: 'LAYERS', value: ({ facts }) => String(facts.chain?.chainIds.length ?? '') },
        { heading: 'TOP', value: ({ facts }) => identifier(facts.chain?.chainIds.at(-1), wide) },
        ...(wide
          ? [{ heading: 'ROOT HASH', value: ({ facts }: ResourceStatus) => facts.chain?.rootHash ?? '' }]
          : []),
      ];
    case 'Mount':
      return [
        { heading: 'PATH', value: ({ facts }) => facts.mount?.path ?? '' },
        { heading: 'VIEW', value: ({ facts }) => facts.mount?.view ?? '' },
        { heading: 'ACCESS', value: ({ facts }) => facts.mount?.access ?? '' },
        ...(wide
          ? [{ heading: 'ROOT HASH', value: ({ facts }: ResourceStatus) => facts.mount?.rootHash ?? '' }]
          : []),
      ];
    case 'Snapshot':
      return [];
  }
}

export function snapshotTable(rows: readonly SnapshotStatus[], layout: Layout): string[] {
  if (rows.length === 0) return [];
  const prefix = layout.qualified ? 'Snapshot/' : '';
  const columns: Column<SnapshotStatus>[] = [
    { heading: 'NAME', value: (row) => prefix + identifier(row.chainId, layout.wide) },
    { heading: 'READY', value: (row) => summariseSnapshot(row).ready, paint: paintReady },
    { heading: 'STATUS', value: (row) => summariseSnapshot(row).reason },
    { heading: 'FORMAT', value: (row) => row.format },
    { heading: 'PARENT', value: (row) => identifier(row.parent, layout.wide) },
    { heading: 'SIZE', value: (row) => size(row.bytes) },
    { heading: 'FILES', value: (row) => String(row.files ?? '') },
    { heading: 'AGE', value: (row) => age(row.committedAt ?? row.createdAt, layout.now) },
    ...(layout.wide
      ? [
          { heading: 'ROOT HASH', value: (row: SnapshotStatus) => row.rootHash ?? '' },
          {
            heading: 'MESSAGE',
            value: (row: SnapshotStatus) => summariseSnapshot(row).message,
            shrinks: true,
          },
        ]
      : []),
  ];
  return renderTable(rows, columns, layout.width, layout.paint);
}

function paintReady(text: string, _row: unknown, paint: Paint): string {
  if (text === 'True') return paint('green', text);
  return paint(text === 'False' ? 'red' : 'yellow', text);
}

/** Twelve digits of a digest name it well enough, also for `describe`. */
function identifier(digest: string | undefined, whole: boolean): string {
  if (digest === undefined) return '';
  return whole ? digest : shortenDigests(digest).replace(/^sha256:/, '');
}

function age(since: string | undefined, now: number): string {
  return since === undefined ? '' : formatAge(now - Date.parse(since));
}

function size(bytes: number | undefined): string {
  return bytes === undefined ? '' : formatBytes(bytes);
}

export function platform(
  value: { os: string; architecture: string; osVersion?: string | undefined } | undefined,
): string {
  if (value === undefined) return '';
  return `${value.os}/${value.architecture}${value.osVersion === undefined ? '' : ` ${value.osVersion}`}`;
}
