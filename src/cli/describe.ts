/** `cimlet describe` */

import type { ResourceStatus, SnapshotStatus, Status } from '../reconciler/status.ts';
import type { ChainFacts, EventRecord } from '../state/records.ts';
import type { AddCommand } from './context.ts';
import {
  parseWanted,
  resourceData,
  selectStatus,
  snapshotData,
  summariseResource,
  summariseSnapshot,
} from './find-status.ts';
import { platform } from './get.ts';
import type { GlobalOptions } from './options.ts';
import { formatData, isDataFormat } from './output.ts';
import { withReader } from './session.ts';
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
} from './text.ts';

const HELP = `
Everything known about one image, chain, mount or snapshot: what was applied,
its conditions and layers, what happened to it. Reads only.

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
      const layout = { width: terminal.width, paint: terminal.paint, now: Date.now() };
      await withReader(context, options, async ({ engine, state: { events } }) => {
        const status = await interruptible(context, engine.status);
        const { resources, snapshots } = selectStatus(status, wanted);
        if (isDataFormat(options.output)) {
          const items = [
            ...resources.map((each) => ({ ...resourceData(each), events: events(each.key) })),
            ...snapshots.map((each) => ({ ...snapshotData(each), events: events(snapshotKey(each)) })),
          ];
          terminal.print(formatData(items.length === 1 ? items[0] : { items }, options.output));
          return;
        }
        const descriptions = [
          ...resources.map((each) => describeResource(each, status, events(each.key), layout)),
          ...snapshots.map((each) => describeSnapshot(each, events(snapshotKey(each)), layout)),
        ];
        if (descriptions.length === 0) terminal.printError(`Nothing found in ${options.root}.`);
        descriptions.forEach((lines, index) => {
          if (index > 0) terminal.print('');
          terminal.print(lines);
        });
      });
    });
};

export interface DescribeLayout {
  width: number;
  paint: Paint;
  /** Milliseconds since 1970. */
  now: number;
}

type Fact = [label: string, value: string | number | undefined];

export function describeResource(
  resource: ResourceStatus,
  status: Status,
  events: readonly EventRecord[],
  layout: DescribeLayout,
): string[] {
  const { image, chain, mount } = resource.facts;
  const summary = summariseResource(resource);
  const facts: Fact[] = [
    ['Name', resource.name],
    ['Kind', resource.kind],
    ['Ready', `${summary.ready} (${summary.reason})`],
    ['Message', shortenDigests(summary.message)],
    ['Generation', resource.generation],
    ['Revision', resource.appliedRevision ?? 'none applied yet'],
    ['Depends on', resource.dependencies.join(', ')],
    ['Platform', platform(image?.platform)],
    ['Digest', image?.digest],
    ['Size', image && formatBytes(image.bytes)],
    ['Format', chain?.format],
    ['Merged', chain?.merged === true ? 'yes' : undefined],
    ['Root hash', mount?.rootHash ?? chain?.rootHash],
    ['VHD footer', chain && hasFooter(chain, status) ? 'yes' : undefined],
    ['Path', mount?.path],
    ['Access', mount?.access],
    ['View', mount?.view],
    ['Volume GUID', mount?.volumeGuid],
    ['Mounted since', mount?.since],
    ['On the host', mount && (resource.mounted?.message ?? resource.mounted?.state ?? 'not mounted')],
  ];
  const layers =
    image?.layers.map(({ digest, bytes }) => `${digest}  ${formatBytes(bytes)}`) ??
    chain?.chainIds.map((chainId) => {
      const snapshot = status.snapshots.find(
        (each) => each.chainId === chainId && each.format === chain.format,
      );
      return `${chainId}  ${snapshot === undefined ? 'Missing' : summariseSnapshot(snapshot).reason}`;
    }) ??
    [];
  return [
    ...factLines(facts, layout),
    ...list('Layers (base first)', layers),
    ...conditionLines(resource, layout),
    ...eventLines(events, layout),
  ];
}

/** Whether what the chain is shown through, its merged CIM or its only layer, ends with a VHD footer. */
function hasFooter({ chainIds, format, merged }: ChainFacts, status: Status): boolean {
  const top = chainIds.at(-1);
  const isIt = (each: { format: string; vhdFooter?: boolean | undefined }) =>
    each.format === format && each.vhdFooter === true;
  return merged === true
    ? status.host.merges.some((each) => each.chain.at(-1) === top && isIt(each))
    : status.snapshots.some((each) => each.chainId === top && isIt(each));
}

export function describeSnapshot(
  snapshot: SnapshotStatus,
  events: readonly EventRecord[],
  layout: DescribeLayout,
): string[] {
  const summary = summariseSnapshot(snapshot);
  const files = snapshot.files === undefined ? '' : `, ${plural(snapshot.files, 'file')}`;
  const facts: Fact[] = [
    ['Chain ID', snapshot.chainId],
    ['Kind', 'Snapshot'],
    ['Ready', `${summary.ready} (${summary.reason})`],
    ['Format', snapshot.format],
    ['Diff ID', snapshot.diffId],
    ['Parent', snapshot.parent ?? 'none: a base layer'],
    ['Size', `${formatBytes(snapshot.bytes)}${files}`],
    ['Builder', snapshot.builder],
    ['Root hash', snapshot.rootHash],
    ['VHD footer', snapshot.vhdFooter === true ? 'yes' : undefined],
    ['Made for', snapshot.neededBy],
    ['Committed', snapshot.committedAt],
  ];
  const faults = snapshot.faults.map(({ code, message }) => `${code}: ${message}`);
  return [...factLines(facts, layout), ...list('Faults', faults), ...eventLines(events, layout)];
}

function snapshotKey({ format, chainId }: SnapshotStatus): string {
  return `Snapshot/${format}/${chainId}`;
}

const LABEL_WIDTH = 15;

function factLines(facts: readonly Fact[], { width }: DescribeLayout): string[] {
  return facts.flatMap(([label, value]) => {
    if (value === undefined || value === '') return [];
    const [first = '', ...rest] = indentWrapped(printable(String(value)), LABEL_WIDTH, width);
    return [`${label}:`.padEnd(LABEL_WIDTH) + first.trimStart(), ...rest];
  });
}

function list(title: string, items: readonly string[]): string[] {
  return items.length === 0 ? [] : [`${title}:`, ...items.map((item) => `  ${printable(item)}`)];
}

function conditionLines({ conditions }: ResourceStatus, { width, paint, now }: DescribeLayout): string[] {
  if (conditions.length === 0) return [];
  const columns = [
    { heading: 'TYPE', value: (each: Condition) => each.type },
    { heading: 'STATUS', value: (each: Condition) => each.status },
    { heading: 'REASON', value: (each: Condition) => each.reason },
    { heading: 'AGE', value: (each: Condition) => formatAge(now - Date.parse(each.lastTransitionTime)) },
    { heading: 'MESSAGE', value: (each: Condition) => shortenDigests(each.message), shrinks: true },
  ];
  return ['Conditions:', ...indented(renderTable(conditions, columns, width - 2, paint))];
}

type Condition = ResourceStatus['conditions'][number];

function eventLines(events: readonly EventRecord[], { width, paint, now }: DescribeLayout): string[] {
  if (events.length === 0) return ['Events:        none'];
  const columns = [
    { heading: 'AGE', value: (each: EventRecord) => formatAge(now - Date.parse(each.lastTime)) },
    { heading: 'TYPE', value: (each: EventRecord) => each.type },
    { heading: 'REASON', value: (each: EventRecord) => each.reason },
    { heading: 'COUNT', value: (each: EventRecord) => String(each.count) },
    { heading: 'MESSAGE', value: (each: EventRecord) => shortenDigests(each.message), shrinks: true },
  ];
  return ['Events:', ...indented(renderTable(events, columns, width - 2, paint))];
}

function indented(lines: readonly string[]): string[] {
  return lines.map((line) => `  ${line}`);
}
