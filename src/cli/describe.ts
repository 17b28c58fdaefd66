/** `cimlet describe` */

import type { ObservedMount } from '../hosts/host.ts';
import { describePlatform } from '../images/platform.ts';
import type { SuspensionNote } from '../reconciler/suspension.ts';
import type { Item, ResourceItem, SnapshotItem, SourceItem } from '../server/items.ts';
import type { ChainFacts, Condition, EventRecord, OutcomeRecord } from '../state/records.ts';
import type { AddCommand } from './context.ts';
import { nothingFoundIn, parseWanted, selectItems } from './find-status.ts';
import { withInventory } from './inventory.ts';
import type { GlobalOptions } from './options.ts';
import { formatData, isDataFormat } from './output.ts';
import { interruptible } from './signals.ts';
import { renderTable } from './table.ts';
import {
  formatAge,
  formatBytes,
  indentWrapped,
  type Paint,
  plural,
  printable,
  shortenDigests,
  widthOf,
} from './text.ts';

const HELP = `
Everything known about one image, chain, mount, snapshot or source: what was
applied, its conditions and layers, what happened to it. Reads only.

Examples:
  cimlet describe mount/app
  cimlet describe snapshot/1a2b3c4d5e6f`;

export const addDescribe: AddCommand = (program, context) => {
  const { terminal } = context;
  program
    .command('describe')
    .description('details of one resource, with conditions, layers and events')
    .argument('<kind/name>', 'for example mount/app')
    .argument('[name]', 'when only the kind came first')
    .addHelpText('after', HELP)
    .action(async (word: string, name: string | undefined, _options, command) => {
      const options = command.optsWithGlobals() as GlobalOptions;
      const wanted = parseWanted(word, name);
      const layout = { width: terminal.tableWidth, paint: terminal.paint, now: Date.now() };
      const { snapshots, events } = await interruptible(context, (signal) =>
        withInventory(context, options, async (inventory) => {
          // The layers of a chain are snapshots.
          const layers = wanted.sections.includes('Source') ? [] : ['Snapshot' as const];
          const items = await inventory.list([...new Set([...wanted.sections, ...layers])], signal);
          const found = selectItems(items, wanted);
          const events = new Map<Item, EventRecord[]>();
          for (const item of [...found.resources, ...found.snapshots, ...found.sources])
            events.set(item, await inventory.events(eventKey(item), signal));
          return { snapshots: items.snapshots, events };
        }),
      );
      const items = [...events.keys()];
      const eventsOf = (item: Item) => events.get(item) ?? [];
      if (isDataFormat(options.output)) {
        const data = items.map((item) => ({ ...item, events: eventsOf(item) }));
        terminal.print(formatData(data.length === 1 ? data[0] : { items: data }, options.output));
        return;
      }
      const descriptions = items.map((item) => {
        if (item.kind === 'Snapshot') return describeSnapshot(item, eventsOf(item), layout);
        if (item.kind === 'Source') return describeSource(item, eventsOf(item), layout);
        return describeResource(item, snapshots, eventsOf(item), layout);
      });
      if (descriptions.length === 0) terminal.printError(nothingFoundIn(options.root));
      descriptions.forEach((lines, index) => {
        if (index > 0) terminal.print('');
        terminal.print(lines);
      });
    });
};

export interface DescribeLayout {
  width: number;
  paint: Paint;
  /** Milliseconds since 1970. */
  now: number;
}

/** As the Host Compute Service takes them, and the scratch over them. */
function hcsLayers(mounted: ObservedMount | undefined): string[][] {
  const { Layers = [], Path } = mounted?.hcsStorage ?? {};
  const layers = Layers.map((layer) => [layer.Id, layer.Path]);
  return Path === undefined ? layers : [...layers, [`under ${Path}`]];
}

type Fact = [label: string, value: string | number | undefined];

/** `snapshots`: all there are, the layers of its chain among them. */
export function describeResource(
  { kind, name, status }: ResourceItem,
  snapshots: readonly SnapshotItem[],
  events: readonly EventRecord[],
  layout: DescribeLayout,
): string[] {
  const { image, chain, mount, mounted } = status;
  const facts: Fact[] = [
    ['Name', name],
    ['Kind', kind],
    ['Ready', `${status.ready} (${status.reason})`],
    ['Message', shortenDigests(status.message)],
    ...suspensionFacts(status.suspended),
    ['Generation', status.generation],
    ['Revision', status.lastAppliedRevision ?? 'none applied yet'],
    ['Depends on', status.dependencies.join(', ')],
    ['Platform', image && describePlatform(image.platform)],
    ['Reference', image?.reference],
    ['Digest', image?.digest],
    ['Size', image && formatBytes(image.bytes)],
    ['Format', chain?.format],
    ['Merged', chain?.merged === true ? 'yes' : undefined],
    ['Root hash', mount?.rootHash ?? chain?.rootHash],
    ['VHD footer', status.vhdFooter === true ? 'yes' : undefined],
    ['Path', mount?.path],
    ['Utility VM', mount?.utilityVM],
    ['Access', mount?.access],
    ['View', mount?.view],
    ['Volume GUID', mount?.volumeGuid],
    ['Mounted since', mount?.since],
    ['On the host', mount && (mounted?.message ?? mounted?.state ?? 'not mounted')],
  ];
  const stateOf = (chainId: string, format: ChainFacts['format']) =>
    snapshots.find((each) => each.name === chainId && each.status.format === format)?.status.reason;
  const layers =
    image?.layers.map(({ digest, bytes }) => [digest, formatBytes(bytes)]) ??
    chain?.chainIds.map((chainId) => [chainId, stateOf(chainId, chain.format) ?? 'Missing']) ??
    [];
  return [
    ...factLines(facts, layout),
    ...list('Layers (base first)', layers, layout),
    ...list('HCS layers (topmost first)', hcsLayers(mounted), layout),
    ...conditionLines(status.conditions, layout),
    ...historyLines(status.history, layout),
    ...eventLines(events, layout),
  ];
}

function describeSnapshot(
  { name, status }: SnapshotItem,
  events: readonly EventRecord[],
  layout: DescribeLayout,
): string[] {
  const files = status.files === undefined ? '' : `, ${plural(status.files, 'file')}`;
  const facts: Fact[] = [
    ['Chain ID', name],
    ['Kind', 'Snapshot'],
    ['Ready', `${status.ready} (${status.reason})`],
    ['Format', status.format],
    ['Diff ID', status.diffId],
    ['Parent', status.parent ?? 'none: a base layer'],
    ['Size', `${formatBytes(status.bytes)}${files}`],
    ['Builder', status.builder],
    ['Root hash', status.rootHash],
    ['VHD footer', status.vhdFooter === true ? 'yes' : undefined],
    ['Made for', status.neededBy],
    ['Name', status.name],
    ['Committed', status.committedAt],
  ];
  const faults = status.faults.map(({ code, message }) => [`${code}: ${message}`]);
  return [...factLines(facts, layout), ...list('Faults', faults, layout), ...eventLines(events, layout)];
}

function describeSource(
  { name, status }: SourceItem,
  events: readonly EventRecord[],
  layout: DescribeLayout,
): string[] {
  const facts: Fact[] = [
    ['Name', name],
    ['Kind', 'Source'],
    ['Ready', `${status.ready} (${status.reason})`],
    ['Message', shortenDigests(status.message)],
    ...suspensionFacts(status.suspended),
    ['Revision', status.revision ?? 'none in force yet'],
    ['Resources', status.resources],
    ['Trouble', status.trouble?.message],
    ['Hint', status.trouble?.hint],
  ];
  return [
    ...factLines(facts, layout),
    ...conditionLines(status.conditions, layout),
    ...eventLines(events, layout),
  ];
}

function suspensionFacts(suspended: SuspensionNote | undefined): Fact[] {
  if (suspended === undefined) return [];
  return [
    ['Suspended by', suspended.by ?? 'its declaration'],
    ['Since', suspended.since],
    ['Because', suspended.reason],
  ];
}

/** What events of it are recorded under. */
function eventKey(item: Item): string {
  return item.kind === 'Snapshot'
    ? `Snapshot/${item.status.format}/${item.name}`
    : `${item.kind}/${item.name}`;
}

const LABEL_WIDTH = 15;

function factLines(facts: readonly Fact[], { width }: DescribeLayout): string[] {
  return facts.flatMap(([label, value]) => {
    if (value === undefined || value === '') return [];
    const text = printable(String(value));
    const lines = indentWrapped(text, LABEL_WIDTH, width);
    // A digest that is too long for the room beside the label fits below it.
    if (lines.some((line) => widthOf(line) > width)) return [`${label}:`, ...indentWrapped(text, 2, width)];
    const [first = '', ...rest] = lines;
    return [`${label}:`.padEnd(LABEL_WIDTH) + first.trimStart(), ...rest];
  });
}

/** `items`: each of parts, beside each other where there is room. */
function list(title: string, items: readonly string[][], { width }: DescribeLayout): string[] {
  if (items.length === 0) return [];
  const lines = items.flatMap((parts) => {
    const line = `  ${printable(parts.join('  '))}`;
    if (widthOf(line) <= width) return [line];
    return parts.flatMap((part, index) => indentWrapped(printable(part), index === 0 ? 2 : 4, width));
  });
  return [`${title}:`, ...lines];
}

function conditionLines(conditions: readonly Condition[], { width, paint, now }: DescribeLayout): string[] {
  if (conditions.length === 0) return [];
  const columns = [
    { heading: 'TYPE', value: (each: Condition) => each.type },
    { heading: 'STATUS', value: (each: Condition) => each.status },
    { heading: 'REASON', value: (each: Condition) => each.reason },
    { heading: 'AGE', value: (each: Condition) => formatAge(now - Date.parse(each.lastTransitionTime)) },
    { heading: 'MESSAGE', value: (each: Condition) => shortenDigests(each.message), wraps: true },
  ];
  return ['Conditions:', ...indented(renderTable(conditions, columns, width - 2, paint))];
}

function historyLines(history: readonly OutcomeRecord[], { width, paint, now }: DescribeLayout): string[] {
  if (history.length === 0) return [];
  const columns = [
    { heading: 'AGE', value: (each: OutcomeRecord) => formatAge(now - Date.parse(each.lastTime)) },
    { heading: 'RESULT', value: (each: OutcomeRecord) => each.result },
    { heading: 'REASON', value: (each: OutcomeRecord) => each.reason },
    { heading: 'COUNT', value: (each: OutcomeRecord) => String(each.count) },
    { heading: 'REVISION', value: (each: OutcomeRecord) => shortenDigests(each.revision) },
    { heading: 'MESSAGE', value: (each: OutcomeRecord) => shortenDigests(each.message), wraps: true },
  ];
  return ['Last outcomes:', ...indented(renderTable(history, columns, width - 2, paint))];
}

function eventLines(events: readonly EventRecord[], { width, paint, now }: DescribeLayout): string[] {
  if (events.length === 0) return ['Events:        none'];
  const columns = [
    { heading: 'AGE', value: (each: EventRecord) => formatAge(now - Date.parse(each.lastTime)) },
    { heading: 'TYPE', value: (each: EventRecord) => each.type },
    { heading: 'REASON', value: (each: EventRecord) => each.reason },
    { heading: 'COUNT', value: (each: EventRecord) => String(each.count) },
    { heading: 'MESSAGE', value: (each: EventRecord) => shortenDigests(each.message), wraps: true },
  ];
  return ['Events:', ...indented(renderTable(events, columns, width - 2, paint))];
}

function indented(lines: readonly string[]): string[] {
  return lines.map((line) => `  ${line}`);
}
