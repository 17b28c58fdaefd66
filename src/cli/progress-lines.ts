/** The live view of a running plan as lines: the tree of actions, then totals. Pure. */

import type { PlannedAction } from '../reconciler/types.ts';
import { type ActionProgress, type ActionStatus, oneLine, type ProgressModel } from './progress-model.ts';
import { actionLabel } from './render-plan.ts';
import { type Paint, padEnd, plural, truncateMiddle, widthOf } from './text.ts';
import { transferText } from './transfer-text.ts';

const GLYPHS: Record<ActionStatus, { glyph: string; style: Parameters<Paint>[0] }> = {
  waiting: { glyph: '·', style: 'dim' },
  fetching: { glyph: '↓', style: 'cyan' },
  running: { glyph: '▸', style: 'cyan' },
  retrying: { glyph: '↻', style: 'yellow' },
  succeeded: { glyph: '✓', style: 'green' },
  failed: { glyph: '✗', style: 'red' },
  skipped: { glyph: '○', style: 'yellow' },
};

interface Branch {
  prefix: string;
  entry: ActionProgress;
}

/**
 * The tree of actions under what needs them, one line each, and lines of totals. When that is taller than `rows`, only
 * what moves or failed is shown.
 */
export function liveLines(
  { actions }: ProgressModel,
  layout: { width: number; rows: number; paint: Paint },
  now: number,
): string[] {
  const { width, rows, paint } = layout;
  const totals = totalLines([...actions.values()], width, now);
  const room = Math.max(2, rows - 1 - totals.length);
  const branches = actions.size <= room ? treeOf(actions) : movingOf(actions).slice(0, room - 1);
  const labelWidth = branches.reduce(
    (most, { prefix, entry }) => Math.max(most, widthOf(prefix) + widthOf(actionLabel(entry.action))),
    0,
  );
  const lines = branches.map(({ prefix, entry }) => {
    const { glyph, style } = GLYPHS[entry.status];
    const label = padEnd(`${prefix}${actionLabel(entry.action)}`, labelWidth);
    const left = truncateMiddle(label, width - 4);
    const facts = factsOf(entry, width - 2 - widthOf(left) - 3, now);
    return `${paint(style, glyph)} ${left}  ${facts}`.trimEnd();
  });
  return [...lines, ...totals];
}

function factsOf(entry: ActionProgress, room: number, now: number): string {
  const { status, phase, total, action } = entry;
  const isMoving = status === 'running' || status === 'fetching';
  if (!isMoving) return truncateMiddle(oneLine(entry.note) || status, room);
  if (total === 0) return truncateMiddle(phase === '' ? action.verb : phase, room);
  return transferText({ ...entry, rate: entry.rate.perSecond(now) }, room);
}

/** How many actions are done; while bytes move, how many of all there are of them. */
function totalLines(entries: readonly ActionProgress[], width: number, now: number): string[] {
  const count = (wanted: ActionStatus) => entries.filter(({ status }) => status === wanted).length;
  const parts = [`${count('succeeded')} of ${plural(entries.length, 'action')} done`];
  for (const status of ['running', 'retrying', 'failed', 'skipped'] as const) {
    if (count(status) > 0) parts.push(`${count(status)} ${status}`);
  }
  const lines = [truncateMiddle(parts.join(', '), width - 1)];

  const running = entries.filter(({ status }) => status === 'running');
  const downloading = running.filter(({ phase }) => phase === 'downloading');
  const unpacking = running.filter(({ phase }) => phase === 'unpacking');
  const layers = entries.filter(({ action }) => action.work.do === 'buildLayer');
  const unpackedOf = ({ status, phase, done, action }: ActionProgress) => {
    if (status === 'succeeded' || (status === 'running' && phase === 'committing')) return action.bytes;
    return status === 'running' && phase === 'unpacking' ? done : 0;
  };
  const rateOf = (moving: ActionProgress[]) => sum(moving, ({ rate }) => rate.perSecond(now) ?? 0);
  if (downloading.length > 0) {
    const [done, total] = [sum(downloading, (each) => each.done), sum(downloading, (each) => each.total)];
    lines.push(transferText({ phase: 'downloading', done, total, rate: rateOf(downloading) }, width - 1));
  }
  if (unpacking.length > 0) {
    const [done, total] = [sum(layers, unpackedOf), sum(layers, ({ action }) => action.bytes)];
    lines.push(transferText({ phase: 'unpacking', done, total, rate: rateOf(unpacking) }, width - 1));
  }
  return lines;
}

function sum<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}

function movingOf(actions: ProgressModel['actions']): Branch[] {
  const moving = [...actions.values()].filter(({ status }) => !['waiting', 'succeeded'].includes(status));
  return moving.map((entry) => ({ prefix: '', entry }));
}

/**
 * Every action once, under the first one that needs it. The snapshots of a chain stand side by side, base first:
 * nesting them as deep as a chain is long would show nothing.
 */
function treeOf(actions: ProgressModel['actions']): Branch[] {
  // Deletions depend the other way round: what goes last would stand on top. They are listed in their order.
  const needed = new Set(
    [...actions.values()].flatMap(({ action }) => (action.verb === 'delete' ? [] : action.dependsOn)),
  );
  const shown = new Set<string>();
  const branches: Branch[] = [];

  const childrenOf = (action: PlannedAction): ActionProgress[] => {
    const children: ActionProgress[] = [];
    for (const id of action.dependsOn) {
      const child = actions.get(id);
      if (child === undefined || shown.has(id)) continue;
      shown.add(id);
      if (child.action.kind === 'Snapshot') children.push(...childrenOf(child.action));
      children.push(child);
    }
    return children;
  };

  const visit = (entry: ActionProgress, lead: string, rest: string): void => {
    branches.push({ prefix: lead, entry });
    const children = entry.action.kind === 'Snapshot' ? [] : childrenOf(entry.action);
    children.forEach((child, index) => {
      const last = index === children.length - 1;
      visit(child, `${rest}${last ? '└─ ' : '├─ '}`, `${rest}${last ? '   ' : '│  '}`);
    });
  };

  for (const entry of actions.values()) {
    const { id, verb } = entry.action;
    if (shown.has(id) || (verb !== 'delete' && needed.has(id))) continue;
    shown.add(id);
    if (verb === 'delete') branches.push({ prefix: '', entry });
    else visit(entry, '', '');
  }
  return branches;
}
