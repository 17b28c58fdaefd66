/** What performing any action needs, and how its effects are attempted. */

import { CimletError, isErrorCode } from '../errors.ts';
import type { EffectContext, Host, LayerBlob, Progress } from '../hosts/host.ts';
import type { KeyedLock } from '../hosts/keyed-lock.ts';
import { type Clock, type DriveOptions, driveMachine } from '../machines/drive-machine.ts';
import type { RetryPolicy } from '../machines/retry.ts';
import type { ImageResource } from '../manifests/resources.ts';
import type { State } from '../state/state.ts';
import type { Arrivals } from './arrivals.ts';
import type { RootHashes } from './root-hashes.ts';
import type { ResolvedImage, Work } from './types.ts';

export type ResolveImage = (image: ImageResource, signal: AbortSignal) => Promise<ResolvedImage>;

/** Brings a layer here that is in a registry; one that is here already, or comes from elsewhere, is left alone. */
export type FetchLayer = (blob: LayerBlob, effect: EffectContext) => Promise<void>;

/** Remembers that all layers of the image are here. */
export type RecordImage = (image: ImageResource) => Promise<void>;

/** Removes a fetched layer when its bytes are not what they should be, so that the next attempt fetches it again. */
export type DiscardDamaged = (blob: LayerBlob, signal: AbortSignal) => Promise<void>;

export interface PerformContext {
  host: Host;
  state: State;
  resolveImage: (name: string, signal: AbortSignal) => Promise<ResolvedImage>;
  fetchLayer: FetchLayer;
  recordImage: (name: string) => Promise<void>;
  /** Told of each blob that is here, before all are. */
  arrivals: Arrivals;
  discardDamaged: DiscardDamaged | undefined;
  /** Held while a chain is merged, across all runs of the engine. */
  locks: KeyedLock;
  rootHashes: RootHashes;
  retry: RetryPolicy;
  /** Of one attempt, in milliseconds. */
  timeoutMs: number | undefined;
  signal: AbortSignal;
  clock: Clock | undefined;
  onProgress: (progress: Progress) => void;
  onWarning: (message: string) => void;
  onRetry: NonNullable<DriveOptions['onRetry']>;
}

export type WorkOf<Do extends Work['do']> = Extract<Work, { do: Do }>;

/** One attempt at an effect, within the time one attempt may take. */
export async function attempt<T>(
  context: PerformContext,
  operation: string,
  effect: (context: EffectContext) => Promise<T>,
): Promise<T> {
  const { timeoutMs, onProgress: progress, onWarning: warn } = context;
  if (timeoutMs === undefined) return effect({ signal: context.signal, progress, warn });
  const timeout = AbortSignal.timeout(timeoutMs);
  try {
    return await effect({ signal: AbortSignal.any([context.signal, timeout]), progress, warn });
  } catch (error) {
    if (!timeout.aborted || context.signal.aborted || !isErrorCode(error, 'cancelled')) throw error;
    throw new CimletError('unavailable', `${operation}: not done within ${timeoutMs / 1000} s`, {
      hint: 'raise spec.timeout, or leave it out',
      cause: error,
    });
  }
}

export function drive<Machine extends Parameters<typeof driveMachine>[0]>(
  machine: Machine,
  input: Parameters<typeof driveMachine<Machine>>[1],
  context: PerformContext,
): Promise<void> {
  return driveMachine(machine, input, {
    signal: context.signal,
    clock: context.clock,
    onRetry: context.onRetry,
  });
}
