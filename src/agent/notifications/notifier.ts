/**
 * Tells receivers what happened: reads the event log as news, each receiver at its own pace and from where it was told
 * last, also before a restart. What isn't told yet is kept by the log, which is bounded; nobody waits for a receiver.
 */

import { setTimeout as wait } from 'node:timers/promises';
import { CimletError, disposition } from '../../errors.ts';
import type { News } from '../../state/records.ts';
import type { State } from '../../state/state.ts';
import type { AgentLog } from '../log.ts';
import { Wakeup } from '../wakeup.ts';
import { type Destination, deliver } from './deliver.ts';
import { partsOf, type ReceiverType, renderMessage } from './messages.ts';

export interface Receiver extends Destination {
  name: string;
  type: ReceiverType;
  /** Only what went wrong. */
  warningsOnly: boolean;
  /** Only of these; of all, except layers that went well, when undefined. */
  kinds?: readonly string[] | undefined;
  /** Only of these, `*` for any text; of all when undefined. */
  names?: readonly string[] | undefined;
  reasons?: readonly string[] | undefined;
}

/** What became of some events for a receiver; `failed`: for now, they are tried again. */
export interface Told {
  receiver: string;
  result: 'sent' | 'refused' | 'expired' | 'failed';
  events: number;
}

export interface NotifierOptions {
  state: Pick<State, 'news' | 'onEvent' | 'toldTo' | 'recordTold'>;
  receivers: readonly Receiver[];
  /** Name of this machine. */
  host: string;
  log: AgentLog;
  onTold?: ((told: Told) => void) | undefined;
  /** Milliseconds in which what happens at about the same time becomes one message. */
  gatherMs?: number | undefined;
  /** Milliseconds before the second attempt; doubled each time, up to five minutes. */
  retryMs?: number | undefined;
}

const GATHER_MS = 1000;
const RETRY_MS = 1000;
const LONGEST_RETRY_MS = 5 * 60_000;
/** Events in one message. */
const MOST_EVENTS = 100;
/** What could not be told for so long is no news. */
const GIVE_UP_MS = 24 * 60 * 60_000;
const LAYERS = ['Snapshot', 'Merge'];

/** Runs until the signal aborts. What was being told then is told again by the next one. */
export async function runNotifier(options: NotifierOptions, signal: AbortSignal): Promise<void> {
  await Promise.all(options.receivers.map((receiver) => serve(receiver, options, signal)));
}

async function serve(receiver: Receiver, options: NotifierOptions, signal: AbortSignal): Promise<void> {
  const { state, log, gatherMs = GATHER_MS } = options;
  const wakeup = new Wakeup();
  const forget = state.onEvent(() => wakeup.wake());
  try {
    let told = state.toldTo(receiver.name);
    recordTold(receiver, told, options);
    while (!signal.aborted) {
      const news = state.news(told, MOST_EVENTS);
      const last = news.at(-1);
      if (last === undefined) {
        await wakeup.sleep(undefined, signal);
        await wait(gatherMs, undefined, { signal });
        continue;
      }
      const wanted = news.filter((event) => isWanted(event, receiver));
      if (wanted.length > 0) await tell(receiver, wanted, options, signal);
      told = last.seq;
      recordTold(receiver, told, options);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
    log.debug({ receiver: receiver.name }, 'no longer told anything');
  } finally {
    forget();
  }
}

/** Until it is told, refused, or no news any more. */
async function tell(
  receiver: Receiver,
  events: readonly News[],
  { host, log, onTold, retryMs = RETRY_MS }: NotifierOptions,
  signal: AbortSignal,
): Promise<void> {
  const { name, type } = receiver;
  const count = (result: Told['result'], number: number) =>
    onTold?.({ receiver: name, result, events: number });
  for (let attempt = 1; ; attempt++) {
    const fresh = events.filter(({ lastTime }) => Date.now() - Date.parse(lastTime) < GIVE_UP_MS);
    const expired = events.length - fresh.length;
    if (expired > 0) {
      count('expired', expired);
      log.warn({ receiver: name, events: expired }, 'not told for a day, and given up');
    }
    if (fresh.length === 0) return;
    const delivery = await deliver(receiver, renderMessage(type, { host, events: fresh }), signal);
    if (delivery.outcome === 'delivered') return count('sent', fresh.length);
    const fields = { receiver: name, events: fresh.length, attempt, why: delivery.why };
    if (delivery.outcome === 'refused') {
      count('refused', fresh.length);
      return log.error(fields, 'the receiver refused a notification');
    }
    count('failed', fresh.length);
    if (attempt === 1) log.warn(fields, 'the receiver could not be notified; trying again');
    const backoff = Math.min(LONGEST_RETRY_MS, retryMs * 2 ** (attempt - 1)) * (1 + Math.random() / 5);
    await wait(Math.max(backoff, delivery.waitMs ?? 0), undefined, { signal });
    events = fresh;
  }
}

/** A full disk takes no notes: then the same may be told again after a restart. */
function recordTold(receiver: Receiver, seq: number, { state, log }: NotifierOptions): void {
  try {
    state.recordTold(receiver.name, seq);
  } catch (error) {
    if (!(error instanceof CimletError) || disposition(error.code) !== 'retry') throw error;
    log.warn({ code: error.code, hint: error.hint }, error.message);
  }
}

function isWanted({ key, type, reason }: News, receiver: Receiver): boolean {
  const { warningsOnly, kinds, names, reasons } = receiver;
  const { kind, name } = partsOf(key);
  if (type === 'Normal' && (warningsOnly || (kinds === undefined && LAYERS.includes(kind)))) return false;
  return (
    (kinds?.includes(kind) ?? true) &&
    (reasons?.includes(reason) ?? true) &&
    (names?.some((pattern) => matches(pattern, name)) ?? true)
  );
}

function matches(pattern: string, name: string): boolean {
  const literal = pattern.split('*').map((text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`^${literal.join('.*')}$`).test(name);
}
