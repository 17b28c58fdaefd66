/** What is known of a running plan, and the plain lines that tell of it. No streams, no clock: time is handed in. */

import { describeError } from '../errors.ts';
import type { ExecutionEvent, PlannedAction } from '../reconciler/types.ts';
import { Rate } from './rate.ts';
import { actionLabel } from './render-plan.ts';
import { formatDuration, printable, shortenDigests } from './text.ts';

/** `fetching`: not begun, but its image brings what it waits for. */
export type ActionStatus =
  | 'waiting'
  | 'fetching'
  | 'running'
  | 'retrying'
  | 'succeeded'
  | 'failed'
  | 'skipped';

export interface ActionProgress {
  action: PlannedAction;
  status: ActionStatus;
  phase: string;
  done: number;
  total: number;
  /** Of the phase. */
  rate: Rate;
  note: string;
}

export interface ProgressModel {
  /** By id, in the plan's order. */
  actions: ReadonlyMap<string, ActionProgress>;
  /** Those that build a layer, by the digest of its blob. */
  byBlob: ReadonlyMap<string, ActionProgress[]>;
}

export function createProgress(planned: readonly PlannedAction[]): ProgressModel {
  const actions = new Map<string, ActionProgress>();
  const byBlob = new Map<string, ActionProgress[]>();
  for (const action of planned) {
    const entry: ActionProgress = {
      action,
      status: 'waiting',
      phase: '',
      done: 0,
      total: 0,
      rate: new Rate(),
      note: '',
    };
    actions.set(action.id, entry);
    if (action.work.do !== 'buildLayer') continue;
    const { digest } = action.work.request.blob;
    byBlob.set(digest, [...(byBlob.get(digest) ?? []), entry]);
  }
  return { actions, byBlob };
}

/** Takes one event into the model. */
export function recordEvent(model: ProgressModel, event: ExecutionEvent, now: number): void {
  const entry = model.actions.get(event.action.id);
  if (entry === undefined) return;
  switch (event.type) {
    case 'action.started':
      Object.assign(entry, { status: 'running', phase: '', done: 0, total: 0, note: '' });
      break;
    case 'action.progressed': {
      entry.status = 'running';
      advance(entry, event, now);
      const { phase, blob } = event;
      if (blob === undefined) break;
      for (const waiting of model.byBlob.get(blob.digest) ?? []) {
        if (waiting.status !== 'waiting' && waiting.status !== 'fetching') continue;
        advance(waiting, { phase, ...blob }, now);
        const isHere = blob.done === blob.total;
        Object.assign(waiting, { status: isHere ? 'waiting' : 'fetching', note: isHere ? 'downloaded' : '' });
      }
      break;
    }
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

function advance(
  entry: ActionProgress,
  { phase, done, total }: Pick<ActionProgress, 'phase' | 'done' | 'total'>,
  now: number,
): void {
  if (entry.phase !== phase || done < entry.done) entry.rate = new Rate();
  entry.rate.observe(done, now);
  Object.assign(entry, { phase, done, total });
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

/** Somebody else's words, fit to be shown in a line. */
export function oneLine(text: string): string {
  return printable(shortenDigests(text.replace(/\n\s*/g, '; ')));
}
