/** Snapshots with names that are half made, half committed or half removed: how each is finished, by whoever began it or after a crash. */

import { CimletError, classify } from '../errors.ts';
import type { ChainId, EffectContext, Host, HostState, LayerRef } from '../hosts/host.ts';
import type { NamedSnapshot, NamedSnapshots } from '../state/named-snapshots.ts';
import type { State } from '../state/state.ts';

/** The host's key of what somebody gave a name. */
export function snapshotKeyOf(name: string): string {
  return `snapshot/${name}`;
}

export class UnfinishedSnapshots {
  readonly #host: Host;
  readonly #state: State;
  readonly #names: NamedSnapshots;
  /** What could not be repaired, and why. */
  readonly #broken = new Map<string, CimletError>();

  constructor(host: Host, state: State) {
    this.#host = host;
    this.#state = state;
    this.#names = state.names;
  }

  /** Throws for what `repair` could not repair. */
  refuse(name: string): void {
    if (this.#broken.has(name)) throw this.#broken.get(name);
  }

  /** Finishes or undoes all that was begun; warns of what can't be. */
  async repair(context: EffectContext): Promise<void> {
    const pending = this.#names.all().filter(({ state }) => state !== 'ready');
    if (pending.length === 0) return;
    const state = await this.#host.observe({ signal: context.signal });
    for (const snapshot of pending) {
      try {
        await this.#repairOne(snapshot, state, context);
      } catch (error) {
        const fault = classify(error, `repair snapshot ${JSON.stringify(snapshot.name)}`);
        if (!(fault instanceof CimletError) || fault.code === 'cancelled') throw fault;
        this.#broken.set(snapshot.name, fault);
        // Nothing may be made in place of what a later repair removes.
        if (snapshot.source !== undefined) this.#broken.set(snapshot.source, fault);
        context.warn?.(
          `repair snapshot ${JSON.stringify(snapshot.name)}, which was left ${snapshot.state}: ${fault.message}`,
        );
      }
    }
  }

  async #repairOne(snapshot: NamedSnapshot, state: HostState, context: EffectContext): Promise<void> {
    const { name, source = '', chain, format } = snapshot;
    if (snapshot.state === 'removing') await this.finishRemoval(snapshot, context);
    else if (snapshot.state === 'preparing') {
      if (state.snapshots.some(({ key }) => key === snapshotKeyOf(name)))
        this.#names.put({ ...snapshot, state: 'ready' });
      else this.#names.forget(name);
    } else if (hasLayer(state, { chainId: chain.at(-1) as ChainId, format }, this.#chainBelow(source))) {
      await this.#host.removeSnapshot(snapshotKeyOf(source), context);
      this.finishCommit(snapshot, source, chain);
    } else this.#names.forget(name);
  }

  /** The chain below what is being committed, to tell whether the chain ID of its own layer was recorded. */
  #chainBelow(source: string): readonly ChainId[] {
    return this.#names.get(source)?.chain ?? [];
  }

  async finishRemoval({ name, kind, chain, format }: NamedSnapshot, context: EffectContext): Promise<void> {
    const chainId = chain.at(-1);
    if (kind !== 'committed') await this.#host.removeSnapshot(snapshotKeyOf(name), context);
    else if (chainId !== undefined && !this.#isOthers({ chainId, format }, name))
      await this.#host.removeLayer({ chainId, format }, context);
    this.#names.forget(name);
  }

  /** A layer with another name, or that manifests asked for, stays when this name goes. */
  #isOthers({ chainId, format }: LayerRef, name: string): boolean {
    const isIt = (each: LayerRef) => each.chainId === chainId && each.format === format;
    return (
      this.#state.records().snapshots.some(isIt) ||
      this.#names
        .all()
        .some((other) => other.name !== name && other.format === format && other.chain.includes(chainId))
    );
  }

  /** `source` is the name of what became the committed one's top layer. */
  finishCommit(snapshot: NamedSnapshot, source: string, chain: ChainId[]): void {
    this.#state.transaction(() => {
      this.#names.forget(source);
      this.#names.put({ ...snapshot, chain, scratch: undefined, source: undefined, state: 'ready' });
    });
  }
}

function hasLayer({ layers }: HostState, ref: LayerRef, below: readonly ChainId[]): boolean {
  if (below.includes(ref.chainId)) return false;
  return layers.some(({ chainId, format }) => chainId === ref.chainId && format === ref.format);
}
