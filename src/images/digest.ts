/** Digests as OCI writes them. Source: OCI image-spec v1.1, descriptor.md, "Digests". */

import { createHash, type Hash } from 'node:crypto';
import type { DiffId, Digest } from '../hosts/host.ts';

/** The registered algorithms; names are those of node:crypto as well. */
const DIGEST = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/;

export function isDigest(value: unknown): value is Digest {
  return typeof value === 'string' && DIGEST.test(value);
}

export function isDiffId(value: unknown): value is DiffId {
  return typeof value === 'string' && DIGEST.test(value);
}

/** `sha256` or `sha512`. */
export function algorithmOf(digest: Digest | DiffId): string {
  return digest.slice(0, digest.indexOf(':'));
}

/** The sha256 digest of `bytes`. */
export function digestOf(bytes: Uint8Array): Digest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}` as Digest;
}

export async function digestOfStream(chunks: AsyncIterable<Uint8Array>): Promise<Digest> {
  const hash = createHash('sha256');
  for await (const chunk of chunks) hash.update(chunk);
  return `sha256:${hash.digest('hex')}` as Digest;
}

/** Hashes a stream with the algorithm that `expected` names. */
export class DigestCheck<D extends Digest | DiffId> {
  readonly expected: D;
  readonly #hash: Hash;

  constructor(expected: D) {
    this.expected = expected;
    this.#hash = createHash(algorithmOf(expected));
  }

  update(bytes: Uint8Array): void {
    this.#hash.update(bytes);
  }

  /** The digest found when it isn't the expected one; ends the hashing. */
  mismatch(): string | undefined {
    const found = `${algorithmOf(this.expected)}:${this.#hash.digest('hex')}`;
    return found === this.expected ? undefined : found;
  }
}
