/** In which images of registries a layer is, and whom to ask for it. */

import { CimletError, isErrorCode } from '../../errors.ts';
import type { Digest } from '../../hosts/host.ts';
import type { BlobIngest } from '../blob-store-ingest.ts';
import type { Descriptor } from '../types.ts';
import type { ForeignLayers } from './blob-places.ts';
import type { ImageReference } from './reference.ts';

export interface LayerToFetch {
  descriptor: Descriptor;
  foreignLayers: ForeignLayers;
  reference: ImageReference;
}

interface Known {
  layer: LayerToFetch;
  /** When its image was resolved, in milliseconds since 1970. */
  at: number;
}

/** Images are resolved again all the time; those that weren't for so long are gone, or led elsewhere since. */
const FORGOTTEN_AFTER_MS = 24 * 3_600_000;
/** Repositories asked in place of the image's own. */
const MOST_OTHERS = 3;

export class KnownLayers {
  readonly #now: () => number;
  /** By digest, then by the image's canonical reference; the one resolved last is the last one. */
  readonly #layers = new Map<Digest, Map<string, Known>>();
  #forgottenAt: number;

  constructor(now: () => number) {
    this.#now = now;
    this.#forgottenAt = now();
  }

  /** An image was resolved that has this layer. */
  add(layer: LayerToFetch): void {
    this.#forget();
    const { digest } = layer.descriptor;
    const { canonical } = layer.reference;
    const images = this.#layers.get(digest) ?? new Map<string, Known>();
    images.delete(canonical);
    this.#layers.set(digest, images.set(canonical, { layer, at: this.#now() }));
  }

  /**
   * Whom to ask: first the image it is for, then other repositories, those resolved last first. Of several images of a
   * repository one is enough.
   */
  find(digest: Digest, image: string | undefined): LayerToFetch[] {
    const images = this.#layers.get(digest);
    if (images === undefined) return [];
    const latestFirst = [...images.values()].reverse();
    const own = image === undefined ? undefined : images.get(image);
    const places = new Map<string, LayerToFetch>();
    for (const { layer } of own === undefined ? latestFirst : [own, ...latestFirst]) {
      const { registry, repository } = layer.reference;
      const place = `${registry}/${repository}`;
      if (!places.has(place)) places.set(place, layer);
    }
    return [...places.values()];
  }

  #forget(): void {
    const now = this.#now();
    if (now - this.#forgottenAt < FORGOTTEN_AFTER_MS) return;
    this.#forgottenAt = now;
    for (const [digest, images] of this.#layers) {
      for (const [image, { at }] of images) if (now - at >= FORGOTTEN_AFTER_MS) images.delete(image);
      if (images.size === 0) this.#layers.delete(digest);
    }
  }
}

/**
 * Layers are shared: where one image's registry fails, another's may have it. Only a few others are asked, and none at a
 * registry that doesn't answer. Throws the first one's error.
 */
export async function firstThatHasIt(
  known: readonly LayerToFetch[],
  ingest: Pick<BlobIngest, 'failure'>,
  fetch: (layer: LayerToFetch, isFirst: boolean) => Promise<void>,
): Promise<void> {
  let first: CimletError | undefined;
  let others = 0;
  const failing = new Set<string>();
  for (const layer of known) {
    const { registry } = layer.reference;
    if (failing.has(registry)) continue;
    if (first !== undefined && ++others > MOST_OTHERS) break;
    try {
      await fetch(layer, first === undefined);
      return;
    } catch (error) {
      const isTheirs = error instanceof CimletError && error.code !== 'cancelled';
      if (!isTheirs || ingest.failure !== undefined) throw error;
      if (isErrorCode(error, 'unavailable', 'busy')) failing.add(registry);
      first ??= error;
    }
  }
  throw first;
}
