/**
 * One Image: known by the digest it was planned with, and its layer blobs at hand. Retries and cancellation:
 * effect-machine.ts.
 *
 * | state     | trigger | next      |
 * |-----------|---------|-----------|
 * | observing | at once | resolving |
 * | resolving | done    | fetching  |
 * | fetching  | done    | present   |
 */

import { createEffectMachine } from './effect-machine.ts';
import type { RetryPolicy } from './retry.ts';

/** Each may be repeated after success, failure or a crash halfway. */
export interface ImageEffects {
  /** Throws when the image is not, or no longer, what the plan was made for. */
  resolveImage(image: string): Promise<void>;
  /** Brings the layer blobs here; those of a local layout only have to be there. */
  fetchBlobs(image: string): Promise<void>;
}

export interface ImageInput {
  image: string;
  retry: RetryPolicy;
}

export function createImageMachine(effects: ImageEffects) {
  return createEffectMachine<ImageInput>({
    id: 'image',
    subject: ({ image }) => `image ${image}`,
    start: [{ to: 'resolving' }],
    effects: {
      resolving: { effect: ({ image }) => effects.resolveImage(image), next: [{ to: 'fetching' }] },
      fetching: { effect: ({ image }) => effects.fetchBlobs(image), next: [{ to: 'present' }] },
    },
    ends: ['present'],
  });
}
