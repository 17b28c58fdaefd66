/** What is known of a running plan, and the lines that show it. No streams, no clock: time is handed in. */

import { describeError } from '../errors.ts';
import type { ExecutionEvent, PlannedAction } from '../reconciler/types.ts';
import { actionLabel } from './render-plan.ts';
import {
  formatBytes,
  formatDuration,
  type Paint,
  padEnd,
  plural,
  printable,
  shortenDigests,
  truncateMiddle,
  widthOf,
} from './text.ts';

export type ActionStatus = 'waiting' | 'running' | 'retrying' | 'succeeded' | 'failed' | 'skipped';

export interface ActionProgress {
  action: PlannedAction;
  status: ActionStatus;
  phase: string;
  done: number;
  total: number;
  /** Milliseconds, of the clock handed in. */
  startedAt: number;
  note: string;
}

export type ProgressModel = Map<string, ActionProgress>;

export function createProgress(actions: readonly PlannedAction[]): ProgressModel {
  return new Map(
    actions.map((action) => [
      action.id,
      { action, status: 'waiting', phase: '', done: 0, total: 0, startedAt: 0, note: '' },
    ]),
  );
}

/** Takes one event into the model. */
export function recordEvent(model: ProgressModel, event: ExecutionEvent, now: number): void {
  const entry = model.get(event.action.id);
  if (entry === undefined) return;
  switch (event.type) {
    case 'action.started':
      Object.assign(entry, { status: 'running', startedAt: now, note: '' });
      break;
    case 'action.progressed':
      if (entry.phase !== event.phase) entry.startedAt = now;
      Object.assign(entry, { status: 'running', phase: event.phase, done: event.done, total: event.total });
      break;
    case 'action.retrying':
      Object.assign(entry, { status: 'retrying', note: retryNote(event) });
      break;
    case 'action.warned':
      break;
    case 'action.succeeded':
      Object.assign(entry, {
        status: 'succeeded',
        note: event.message ?? formatDuration(event.durationMs),
      });
      break;
    case 'action.failed':
      Object.assign(entry, { status: 'failed', note: event.error.message });
      break;
    case 'action.skipped':
      Object.assign(entry, { status: 'skipped', note: event.because });
      break;
  }
}

function retryNote(event: Extract<ExecutionEvent, { type: 'action.retrying' }>): string {
  return `${event.error.message}; attempt ${event.attempt + 1} in ${formatDuration(event.delayMs)}`;
}

/**
 * The plain line for an event, or undefined when it says nothing new: a state change always does, progress at most
 * about every ten per cent. `steps` remembers what was said; one map for one run.
 */
export function plainLine(event: ExecutionEvent, steps: Map<string, string>): string | undefined {
  const label = actionLabel(event.action);
  switch (event.type) {
    case 'action.started':
      return `${label} started (${event.action.verb})`;
    case 'action.progressed': {
      const percent = event.total > 0 ? Math.floor((event.done / event.total) * 10) * 10 : 0;
      const step = `${event.phase} ${percent}`;
      if (steps.get(event.action.id) === step) return undefined;
      steps.set(event.action.id, step);
      return `${label} ${event.phase}${event.total > 0 ? ` ${percent}%` : ''}`;
    }
    case 'action.retrying':
      return `${label} retrying: ${oneLine(retryNote(event))}`;
    case 'action.warned':
      return `${label} warning: ${oneLine(event.message)}`;
    case 'action.succeeded':
      return `${label} done in ${formatDuration(event.durationMs)}${event.message ? `: ${oneLine(event.message)}` : ''}`;
    case 'action.failed':
      return `${label} failed: ${oneLine(describeError(event.error))}`;
    case 'action.skipped':
      return `${label} skipped: ${oneLine(event.because)}`;
  }
}

function oneLine(text: string): string {
  return printable(shortenDigests(text.replace(/\n\s*/g, '; ')));
}

const GLYPHS: Record<ActionStatus, { glyph: string; style: Parameters<Paint>[0] }> = {
  waiting: { glyph: '·', style: 'dim' },
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
 * The live view: the tree of actions under what needs them, one line each, and a line of totals. When that is taller
 * than `rows`, only what moves or failed is shown.
 */
export function liveLines(
  model: ProgressModel,
  layout: { width: number; rows: number; paint: Paint },
  now: number,
): string[] {
  const room = Math.max(3, layout.rows - 2);
  const branches = model.size <= room ? treeOf(model) : movingOf(model).slice(0, room - 1);
  const labelWidth = branches.reduce(
    (most, { prefix, entry }) => Math.max(most, widthOf(prefix) + widthOf(actionLabel(entry.action))),
    0,
  );
  const lines = branches.map(({ prefix, entry }) => {
    const { glyph, style } = GLYPHS[entry.status];
    const label = padEnd(`${prefix}${actionLabel(entry.action)}`, labelWidth);
    const left = truncateMiddle(label, layout.width - 4);
    const facts = truncateMiddle(factsOf(entry, now), layout.width - 2 - widthOf(left) - 3);
    return `${layout.paint(style, glyph)} ${left}  ${facts}`.trimEnd();
  });
  return [...lines, truncateMiddle(totals(model), layout.width - 1)];
}

function factsOf(entry: ActionProgress, now: number): string {
  const note = oneLine(entry.note);
  if (entry.status !== 'running') return note === '' ? entry.status : note;
  const phase = entry.phase === '' ? entry.action.verb : entry.phase;
  if (entry.total === 0) return phase;
  const share = Math.min(1, entry.done / entry.total);
  const filled = Math.round(share * 20);
  const bar = '█'.repeat(filled) + '░'.repeat(20 - filled);
  const seconds = (now - entry.startedAt) / 1000;
  const rate = seconds > 0.2 ? `  ${formatBytes(Math.round(entry.done / seconds))}/s` : '';
  return `${phase} ${bar} ${Math.floor(share * 100)}%  ${formatBytes(entry.done)}/${formatBytes(entry.total)}${rate}`;
}

function totals(model: ProgressModel): string {
  const counts = { waiting: 0, running: 0, retrying: 0, succeeded: 0, failed: 0, skipped: 0 };
  for (const { status } of model.values()) counts[status]++;
  const parts = [`${counts.succeeded} of ${plural(model.size, 'action')} done`];
  for (const status of ['running', 'retrying', 'failed', 'skipped'] as const) {
    if (counts[status] > 0) parts.push(`${counts[status]} ${status}`);
  }
  return parts.join(', ');
}

function movingOf(model: ProgressModel): Branch[] {
  const moving = [...model.values()].filter(({ status }) => !['waiting', 'succeeded'].includes(status));
  return moving.map((entry) => ({ prefix: '', entry }));
}

/**
 * Every action once, under the first one that needs it. The snapshots of a chain stand side by side, base first:
 * nesting them as deep as a chain is long would show nothing.
 */
function treeOf(model: ProgressModel): Branch[] {
  // Deletions depend the other way round: what goes last would stand on top. They are listed in their order.
  const needed = new Set(
    [...model.values()].flatMap(({ action }) => (action.verb === 'delete' ? [] : action.dependsOn)),
  );
  const shown = new Set<string>();
  const branches: Branch[] = [];

  const childrenOf = (action: PlannedAction): ActionProgress[] => {
    const children: ActionProgress[] = [];
    for (const id of action.dependsOn) {
      const child = model.get(id);
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

  for (const entry of model.values()) {
    const { id, verb } = entry.action;
    if (shown.has(id) || (verb !== 'delete' && needed.has(id))) continue;
    shown.add(id);
    if (verb === 'delete') branches.push({ prefix: '', entry });
    else visit(entry, '', '');
  }
  return branches;
}
