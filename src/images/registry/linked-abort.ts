/** A controller that aborts with a signal, or by itself. */

export interface LinkedAbort {
  readonly signal: AbortSignal;
  abort(reason: unknown): void;
  /** To be called when what it is for has ended. */
  unlink(): void;
}

/** By hand: on Node 22 a signal that lives long keeps something of each `AbortSignal.any` made of it. */
export function linkAbort(outer: AbortSignal): LinkedAbort {
  const controller = new AbortController();
  const abort = () => controller.abort(outer.reason);
  if (outer.aborted) abort();
  outer.addEventListener('abort', abort, { once: true });
  return {
    signal: controller.signal,
    abort: (reason) => controller.abort(reason),
    unlink: () => outer.removeEventListener('abort', abort),
  };
}
