/** Images, chains, mounts, snapshots and sources as tables. */

import { describePlatform } from '../images/platform.ts';
import type { Kind } from '../manifests/resources.ts';
import type { Item, ResourceItem, Section, SnapshotItem, SourceItem } from '../server/items.ts';
import { type Column, renderTable } from './table.ts';
import { formatAge, formatBytes, type Paint, shortenDigests } from './text.ts';

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
export function itemTable(rows: readonly Item[], section: Section, layout: Layout): string[] {
  if (rows.length === 0) return [];
  return renderTable(rows, itemColumns(section, layout), layout.width, layout.paint);
}

/** For rows of that section only. */
export function itemColumns(section: Section, layout: Layout): Column<Item>[] {
  if (section === 'Source') return sourceColumns(layout) as Column<Item>[];
  if (section === 'Snapshot') return snapshotColumns(layout) as Column<Item>[];
  return resourceColumns(section, layout) as Column<Item>[];
}

function resourceColumns(kind: Kind, layout: Layout): Column<ResourceItem>[] {
  return [
    { heading: 'NAME', value: (row) => (layout.qualified ? `${row.kind}/${row.name}` : row.name) },
    ...conditionColumns,
    ...columnsOf(kind, layout.wide),
    { heading: 'AGE', value: (row) => age(row.status.createdAt, layout.now) },
    ...(layout.wide ? [messageColumn] : []),
  ];
}

const conditionColumns: Column<Item>[] = [
  { heading: 'READY', value: (row) => row.status.ready, paint: paintReady },
  { heading: 'STATUS', value: (row) => row.status.reason },
];

const messageColumn: Column<Item> = { heading: 'MESSAGE', value: (row) => row.status.message, shrinks: true };

function columnsOf(kind: Kind, wide: boolean): Column<ResourceItem>[] {
  switch (kind) {
    case 'Image':
      return [
        { heading: 'PLATFORM', value: ({ status }) => platformOf(status.image), shrinks: true },
        { heading: 'LAYERS', value: ({ status }) => String(status.image?.layers.length ?? '') },
        { heading: 'SIZE', value: ({ status }) => size(status.image?.bytes) },
        ...(wide
          ? [{ heading: 'DIGEST', value: ({ status }: ResourceItem) => status.image?.digest ?? '' }]
          : []),
      ];
    case 'LayerChain':
      return [
        { heading: 'FORMAT', value: ({ status }) => status.chain?.format ?? '' },
        { heading: 'LAYERS', value: ({ status }) => String(status.chain?.chainIds.length ?? '') },
        { heading: 'TOP', value: ({ status }) => identifier(status.chain?.chainIds.at(-1), wide) },
        ...(wide
          ? [{ heading: 'ROOT HASH', value: ({ status }: ResourceItem) => status.chain?.rootHash ?? '' }]
          : []),
      ];
    case 'Mount':
      return [
        { heading: 'PATH', value: ({ status }) => status.mount?.path ?? '', shrinks: true },
        { heading: 'VIEW', value: ({ status }) => status.mount?.view ?? '' },
        { heading: 'ACCESS', value: ({ status }) => status.mount?.access ?? '' },
        ...(wide
          ? [{ heading: 'ROOT HASH', value: ({ status }: ResourceItem) => status.mount?.rootHash ?? '' }]
          : []),
      ];
  }
}

function snapshotColumns(layout: Layout): Column<SnapshotItem>[] {
  const prefix = layout.qualified ? 'Snapshot/' : '';
  return [
    { heading: 'NAME', value: (row) => prefix + identifier(row.name, layout.wide) },
    ...conditionColumns,
    { heading: 'FORMAT', value: ({ status }) => status.format },
    { heading: 'PARENT', value: ({ status }) => identifier(status.parent, layout.wide) },
    { heading: 'SIZE', value: ({ status }) => size(status.bytes) },
    { heading: 'AGE', value: ({ status }) => age(status.committedAt ?? status.createdAt, layout.now) },
    ...(layout.wide ? wideSnapshotColumns : []),
  ];
}

const wideSnapshotColumns: Column<SnapshotItem>[] = [
  { heading: 'FILES', value: ({ status }) => String(status.files ?? '') },
  { heading: 'ROOT HASH', value: ({ status }) => status.rootHash ?? '' },
  messageColumn,
];

function sourceColumns(layout: Layout): Column<SourceItem>[] {
  return [
    { heading: 'NAME', value: ({ name }) => name },
    ...conditionColumns,
    { heading: 'RESOURCES', value: ({ status }) => String(status.resources) },
    {
      heading: 'REVISION',
      value: ({ status }) => (layout.wide ? (status.revision ?? '') : shortenDigests(status.revision ?? '')),
    },
    messageColumn,
  ];
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

function platformOf(image: ResourceItem['status']['image']): string {
  return image === undefined ? '' : describePlatform(image.platform);
}
