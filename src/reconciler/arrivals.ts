/** Layer blobs that an Image's action has brought here while it goes on with others. */

import type { Digest } from '../hosts/host.ts';

export class Arrivals {
  readonly #digests = new Set<Digest>();
  #listener: ((digest: Digest) => void) | undefined;

  add(digest: Digest): void {
    if (this.#digests.has(digest)) return;
    this.#digests.add(digest);
    this.#listener?.(digest);
  }

  /** Tells of what came before, too. Whoever listened until now is told nothing more. */
  listen(listener: (digest: Digest) => void): void {
    this.#listener = listener;
    for (const digest of this.#digests) listener(digest);
  }
}
