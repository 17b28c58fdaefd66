/** Which actions of a plan run, and which wait for others or for a slot. */

import type { ExecutionEvent, Plan } from '../reconciler/types.ts';

export class ActionQueue {
  readonly running = new Set<string>();
  readonly waiting = new Set<string>();

  /** `running`: what goes on from the round before; what else ran has been stopped. */
  begin({ actions }: Plan, running: readonly string[]): void {
    this.running.clear();
    for (const id of running) this.running.add(id);
    this.waiting.clear();
    for (const { id } of actions) if (!this.running.has(id)) this.waiting.add(id);
  }

  note({ type, action: { id } }: ExecutionEvent): void {
    if (type === 'action.progressed' || type === 'action.warned' || type === 'action.retrying') return;
    this.waiting.delete(id);
    if (type === 'action.started') this.running.add(id);
    else this.running.delete(id);
  }

  /** What runs may go on. */
  end(): void {
    this.waiting.clear();
  }
}
