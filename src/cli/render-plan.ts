/** A plan as text: drift first, then what the manifests ask for, what is blocked, notes, and one summary line. */

import type { Blocked, Plan, PlannedAction, Verb } from '../reconciler/types.ts';
import {
  formatBytes,
  indentWrapped,
  type Paint,
  padEnd,
  padStart,
  printable,
  type Style,
  shortenDigests,
  widthOf,
} from './text.ts';

export interface PlanLayout {
  width: number;
  paint: Paint;
}

const SYMBOLS: Record<Verb, string> = {
  create: '+',
  change: '~',
  replace: '-/+',
  repair: '!',
  delete: '-',
};

const STYLES: Record<Verb, Style> = {
  create: 'green',
  change: 'yellow',
  replace: 'yellow',
  repair: 'magenta',
  delete: 'red',
};

const SYMBOL_WIDTH = 5;

/** The whole plan, without a trailing newline. */
export function renderPlan(plan: Plan, layout: PlanLayout): string[] {
  const drift = plan.actions.filter((action) => action.drift);
  const changes = plan.actions.filter((action) => !action.drift);
  const titles = {
    drift: 'Drift (the host moved away from what was applied)',
    changes: plan.mode === 'delete' ? 'To delete' : 'Planned changes',
    blocked: 'Blocked (these cannot go on, nor can what depends on them)',
  };
  const columns = measure(plan.actions);
  return [
    ...(plan.host.kind === 'offline'
      ? ['Planned offline, from the files alone: what the host has is not known.', '']
      : []),
    ...section(titles.drift, drift, columns, layout),
    ...section(titles.changes, changes, columns, layout),
    ...blockedSection(titles.blocked, plan.blocked, layout),
    ...noteLines(plan, layout),
    summaryLine(plan, layout),
  ];
}

/** How an action is called in text: snapshots and merged CIMs by the first digits of their chain ID. */
export function actionLabel({ kind, name }: PlannedAction): string {
  const isShared = kind === 'Snapshot' || kind === 'Merge';
  return printable(`${kind}/${isShared ? shortenDigests(name).replace(/^sha256:/, '') : name}`);
}

/** True when the plan does nothing and nothing hinders it. */
function isEmptyPlan(plan: Plan): boolean {
  return plan.actions.length === 0 && plan.blocked.length === 0;
}

/** True when something is blocked that should go on; what is suspended is left alone on purpose. */
export function isHindered(plan: Plan): boolean {
  return plan.blocked.some(({ code }) => code !== 'suspended');
}

/** `Plan: 4 to create, 1 blocked.` or `No changes. ...`: always exactly one line. */
function summaryLine(plan: Plan, layout: Pick<PlanLayout, 'paint'>): string {
  if (isEmptyPlan(plan)) {
    if (plan.notes.some(({ drift }) => drift === true))
      return layout.paint(
        'yellow',
        'No changes. There is drift that is only reported (driftPolicy: Report).',
      );
    const why = plan.mode === 'delete' ? 'There is nothing to delete.' : 'The host matches the manifests.';
    return layout.paint('green', `No changes. ${why}`);
  }
  const { summary } = plan;
  const counts = (['create', 'change', 'replace', 'repair', 'delete'] as const)
    .filter((verb) => summary[verb] > 0)
    .map((verb) => `${summary[verb]} to ${verb}`);
  if (plan.blocked.length > 0) counts.push(`${plan.blocked.length} blocked`);
  const sizes = [sizeOf(plan, 'buildLayer', 'to unpack'), sizeOf(plan, 'removeLayer', 'to free')].filter(
    (text) => text !== undefined,
  );
  const suffix = sizes.length > 0 ? ` (${sizes.join(', ')})` : '';
  return layout.paint('bold', `Plan: ${counts.join(', ')}${suffix}.`);
}

function sizeOf(plan: Plan, work: PlannedAction['work']['do'], purpose: string): string | undefined {
  const bytes = plan.actions.reduce((sum, each) => sum + (each.work.do === work ? each.bytes : 0), 0);
  return bytes === 0 ? undefined : `${formatBytes(bytes)} ${purpose}`;
}

function section(
  title: string,
  actions: PlannedAction[],
  columns: ColumnWidths,
  layout: PlanLayout,
): string[] {
  if (actions.length === 0) return [];
  const { label, detail, bytes, reasons } = columns;
  const oneLineEach = SYMBOL_WIDTH + label + 2 + detail + 2 + bytes + 2 + reasons <= layout.width;
  const lines = actions.flatMap((action) =>
    oneLineEach ? [wideLine(action, columns, layout)] : stackedLines(action, columns, layout),
  );
  return [layout.paint('bold', title), '', ...lines, ''];
}

interface ColumnWidths {
  label: number;
  detail: number;
  bytes: number;
  reasons: number;
}

function measure(actions: readonly PlannedAction[]): ColumnWidths {
  const widest = (text: (action: PlannedAction) => string) =>
    actions.reduce((most, action) => Math.max(most, widthOf(text(action))), 0);
  return {
    label: widest(actionLabel),
    detail: widest(detailText),
    bytes: widest(bytesText),
    reasons: widest(reasonText),
  };
}

function wideLine(action: PlannedAction, columns: ColumnWidths, { paint }: PlanLayout): string {
  return [
    symbolText(action.verb, paint) + padEnd(actionLabel(action), columns.label),
    padEnd(detailText(action), columns.detail),
    padStart(bytesText(action), columns.bytes),
    paint('dim', reasonText(action)),
  ]
    .join('  ')
    .trimEnd();
}

function stackedLines(action: PlannedAction, columns: ColumnWidths, { width, paint }: PlanLayout): string[] {
  const label = actionLabel(action);
  const detail = detailText(action);
  const bytes = bytesText(action);
  const first = symbolText(action.verb, paint) + padEnd(label, columns.label);
  const edge = Math.min(width, SYMBOL_WIDTH + columns.label + 2 + columns.detail + 2 + columns.bytes);
  const beside = edge - SYMBOL_WIDTH - columns.label - 2;
  const head =
    widthOf(detail) + 2 + widthOf(bytes) <= beside
      ? [`${first}  ${detail}${padStart(bytes, beside - widthOf(detail))}`.trimEnd()]
      : [
          `${first}${padStart(bytes, beside + 2)}`.trimEnd(),
          ...indentWrapped(detail, SYMBOL_WIDTH + 2, width),
        ];
  const reasons = indentWrapped(reasonText(action), SYMBOL_WIDTH + 2, width);
  return [...head, ...reasons.map((line) => paint('dim', line))];
}

function symbolText(verb: Verb, paint: Paint): string {
  return paint(STYLES[verb], padEnd(padStart(SYMBOLS[verb], 3), SYMBOL_WIDTH));
}

function detailText(action: PlannedAction): string {
  return printable(shortenDigests(action.detail));
}

function bytesText(action: PlannedAction): string {
  return action.bytes === 0 ? '' : formatBytes(action.bytes);
}

function reasonText(action: PlannedAction): string {
  return action.reasons.map((reason) => printable(shortenDigests(reason.message))).join('; ');
}

function blockedSection(title: string, blocked: readonly Blocked[], { width, paint }: PlanLayout): string[] {
  if (blocked.length === 0) return [];
  const lines = blocked.flatMap((each) => {
    const { position } = each;
    const place = position ? `${printable(position.file)}:${position.line}:${position.column}` : '';
    return [
      `${paint('red', '  x ')} ${printable(each.key)}${place === '' ? '' : `  ${paint('dim', place)}`}`,
      ...indentWrapped(printable(shortenDigests(`${each.message} (${each.code})`)), SYMBOL_WIDTH + 2, width),
      ...(each.hint === undefined
        ? []
        : indentWrapped(`hint: ${printable(each.hint)}`, SYMBOL_WIDTH + 2, width)),
    ];
  });
  return [paint('bold', title), '', ...lines, ''];
}

function noteLines(plan: Plan, { width, paint }: PlanLayout): string[] {
  if (plan.notes.length === 0) return [];
  const lines = plan.notes.flatMap((note) => {
    const subject = note.key === undefined ? '' : `${note.key}: `;
    const [first = '', ...rest] = indentWrapped(
      printable(shortenDigests(`${subject}${note.message}`)),
      6,
      width,
    );
    return [`${paint('cyan', 'note: ')}${first.trimStart()}`, ...rest];
  });
  return [...lines, ''];
}
