import { CimletError } from '../../errors.ts';
import type { Host } from '../host.ts';

export type EffectName = Exclude<keyof Host, 'kind' | 'root'>;

export interface HostCall {
  method: EffectName;
  /** What it was called for: chain ID, volume GUID or snapshot key; empty for observe, capabilities, cleanLeftovers. */
  subject: string;
}

export type OnCall = (call: HostCall, stage: 'before' | 'after') => void | Promise<void>;

interface FailurePlan {
  method: EffectName;
  call: number;
  stage: 'before' | 'after';
  error: Error;
}

/** Records calls and makes the planned ones fail. */
export class CallLog {
  readonly calls: HostCall[] = [];
  readonly #onCall: OnCall | undefined;
  #failures: FailurePlan[] = [];

  constructor(onCall: OnCall | undefined) {
    this.#onCall = onCall;
  }

  failNext(
    method: EffectName,
    error: Error,
    { call = 1, stage = 'before' }: { call?: number; stage?: 'before' | 'after' },
  ): void {
    this.#failures.push({ method, error, call, stage });
  }

  /** Runs the effect of one call between its two stages. */
  async run<T>(
    method: EffectName,
    subject: string,
    signal: AbortSignal | undefined,
    effect: () => T | Promise<T>,
  ): Promise<T> {
    const call = { method, subject };
    this.calls.push(call);
    const due = this.#dueFailure(method);
    await this.#onCall?.(call, 'before');
    if (signal?.aborted)
      throw new CimletError('cancelled', `${method} ${subject}: cancelled`, { cause: signal.reason });
    if (due?.stage === 'before') throw due.error;
    const result = await effect();
    await this.#onCall?.(call, 'after');
    if (due?.stage === 'after') throw due.error;
    return result;
  }

  #dueFailure(method: EffectName): FailurePlan | undefined {
    const planned = this.#failures.filter((plan) => plan.method === method);
    for (const plan of planned) plan.call -= 1;
    const due = planned.find((plan) => plan.call === 0);
    this.#failures = this.#failures.filter((plan) => plan !== due);
    return due;
  }
}
