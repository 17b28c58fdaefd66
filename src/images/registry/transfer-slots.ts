/** Bounds transfers per host and in all, and lets images take turns, so that a large one doesn't hold up the others. */

import { CimletError } from '../../errors.ts';

export interface SlotLimits {
  perHost: number;
  inAll: number;
}

export interface SlotRequest {
  host: string;
  /** Who it is for: those who wait take turns. */
  image: string;
}

interface Waiting extends SlotRequest {
  start: () => void;
}

export class TransferSlots {
  readonly #limits: SlotLimits;
  readonly #running = new Map<string, number>();
  #runningInAll = 0;
  #waiting: Waiting[] = [];
  /** When each image last got a slot, as a count. */
  readonly #lastTurns = new Map<string, number>();
  #turns = 0;

  constructor(limits: SlotLimits) {
    this.#limits = limits;
  }

  /** Runs `task` when there is a slot for it. Throws `cancelled` while waiting. */
  async run<T>(request: SlotRequest, signal: AbortSignal, task: () => Promise<T>): Promise<T> {
    await this.#enter(request, signal);
    try {
      return await task();
    } finally {
      this.#leave(request);
    }
  }

  #enter(request: SlotRequest, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const abort = () => {
        this.#waiting = this.#waiting.filter((each) => each !== waiting);
        reject(
          new CimletError('cancelled', `fetch from ${request.host}: cancelled`, { cause: signal.reason }),
        );
      };
      const waiting: Waiting = {
        ...request,
        start: () => {
          signal.removeEventListener('abort', abort);
          resolve();
        },
      };
      if (signal.aborted) return abort();
      signal.addEventListener('abort', abort, { once: true });
      this.#waiting.push(waiting);
      this.#startSome();
    });
  }

  #leave({ host }: SlotRequest): void {
    this.#runningInAll--;
    const left = (this.#running.get(host) ?? 0) - 1;
    if (left > 0) this.#running.set(host, left);
    else this.#running.delete(host);
    this.#startSome();
  }

  #startSome(): void {
    while (this.#runningInAll < this.#limits.inAll) {
      const next = this.#waiting
        .filter(({ host }) => (this.#running.get(host) ?? 0) < this.#limits.perHost)
        .reduce<Waiting | undefined>(
          (first, each) => (first === undefined || this.#turnOf(each) < this.#turnOf(first) ? each : first),
          undefined,
        );
      if (next === undefined) return;
      this.#waiting = this.#waiting.filter((each) => each !== next);
      this.#running.set(next.host, (this.#running.get(next.host) ?? 0) + 1);
      this.#runningInAll++;
      this.#lastTurns.set(next.image, ++this.#turns);
      next.start();
    }
    if (this.#waiting.length === 0 && this.#runningInAll === 0) this.#lastTurns.clear();
  }

  #turnOf({ image }: Waiting): number {
    return this.#lastTurns.get(image) ?? 0;
  }
}
