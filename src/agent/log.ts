/** What the agent logs to: fields first, then a message, as pino has it. */

import { CimletError } from '../errors.ts';
import type { ExecutionEvent } from '../reconciler/types.ts';

type Write = (fields: Record<string, unknown>, message: string) => void;

export interface AgentLog {
  debug: Write;
  info: Write;
  warn: Write;
  error: Write;
}

/** Progress is not logged. */
export function logEvent(event: ExecutionEvent, log: AgentLog): void {
  const fields = { action: event.action.id, verb: event.action.verb };
  if (event.type === 'action.started') log.info(fields, 'started');
  else if (event.type === 'action.skipped') log.info({ ...fields, because: event.because }, 'skipped');
  else if (event.type === 'action.warned') log.warn(fields, event.message);
  else if (event.type === 'action.succeeded') {
    log.info({ ...fields, ms: Math.round(event.durationMs) }, 'done');
  } else if (event.type === 'action.failed') {
    const hint = event.error instanceof CimletError ? event.error.hint : undefined;
    log.error({ ...fields, hint }, event.error.message);
  }
}
