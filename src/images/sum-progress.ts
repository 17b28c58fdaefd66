/** The progress of several blobs that are fetched at a time, as that of them all. */

import type { Digest, EffectContext, LayerBlob, Progress } from '../hosts/host.ts';

/** Gives each blob a report of its own; each event says how far it is, and how far all are. Every digest once. */
export function sumProgress(
  blobs: readonly Pick<LayerBlob, 'digest' | 'size'>[],
  { progress }: Pick<EffectContext, 'progress'>,
): (blob: { digest: Digest }) => (progress: Progress) => void {
  const total = blobs.reduce((sum, { size }) => sum + size, 0);
  const doneOf = new Map<Digest, number>();
  let done = 0;
  return ({ digest }) =>
    ({ phase, ...own }) => {
      done += own.done - (doneOf.get(digest) ?? 0);
      doneOf.set(digest, own.done);
      progress?.({ phase, done, total, blob: { digest, ...own } });
    };
}
