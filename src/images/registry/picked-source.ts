/** A repository as a source of images: the tag that a policy picks among those it has. */

import { CimletError } from '../../errors.ts';
import type { BlobStore } from '../blob-store.ts';
import type { ImageSource } from '../types.ts';
import type { RegistryClient } from './client.ts';
import type { Rechecks } from './rechecks.ts';
import { type ImageReference, parseReference } from './reference.ts';
import { notHere, type PullPolicy } from './registry-source.ts';
import { chooseTag, describePolicy, type TagPolicy } from './tag-policy.ts';

/** Tags picked in one session, and when. */
export type PickedTags = Map<string, { tag: string; at: number }>;

export interface PickedSourceOptions {
  /** Its tag says nothing; it has no digest. */
  reference: ImageReference;
  tags: TagPolicy;
  client: RegistryClient;
  store: BlobStore;
  policy: PullPolicy;
  intervalMs: number;
  picked: PickedTags;
  rechecks: Rechecks;
  now: () => number;
  /** The image of one tag. */
  open: (reference: ImageReference) => ImageSource;
}

/** Throws `invalid-manifest` for a reference with a digest. `list` throws `not-found` when no tag suits. */
export function pickedSource(options: PickedSourceOptions): ImageSource {
  const { reference, tags: policy, client, store, picked, now } = options;
  const { registry, repository, canonical } = reference;
  const name = `repository ${registry}/${repository}`;
  if (reference.digest !== undefined) {
    throw new CimletError('invalid-manifest', `spec.policy picks a tag, but ${canonical} names a digest`, {
      hint: 'leave out spec.policy, or the digest',
    });
  }
  const key = JSON.stringify([registry, repository, policy]);

  const storedTags = async (): Promise<string[]> => {
    const stored = (await store.listImages()).map((image) => parseReference(image.reference));
    return stored.flatMap((known) =>
      known.registry === registry && known.repository === repository && known.tag !== undefined
        ? [known.tag]
        : [],
    );
  };

  const pick = async (signal: AbortSignal): Promise<{ tag: string; warnings?: string[] }> => {
    const before = picked.get(key);
    const isFresh = before !== undefined && now() - before.at < options.intervalMs;
    if (isFresh && options.policy !== 'Always') return { tag: before.tag };
    const known = chooseTag(await storedTags(), policy);
    if (options.policy === 'Never') {
      if (known === undefined) throw notHere(`${registry}/${repository} with ${describePolicy(policy)}`);
      return { tag: known };
    }
    const list = async (once: boolean) => {
      const found = await client.listTags(signal, { once });
      const tag = chooseTag(found, policy);
      if (tag === undefined) throw nothingSuits(found);
      picked.set(key, { tag, at: now() });
      return tag;
    };
    if (known === undefined || options.policy === 'Always') return { tag: await list(false) };
    const asked = await options.rechecks.run(registry, () => list(true));
    if ('value' in asked) return { tag: asked.value };
    return { tag: known, warnings: [`newer tags of ${name} are not known: ${asked.error.message}`] };
  };

  const nothingSuits = (found: readonly string[]): CimletError => {
    const some = [...found].sort().slice(-10).join(', ');
    const offered =
      found.length === 0
        ? 'it has no tags'
        : `it has ${found.length} ${found.length === 1 ? 'tag' : 'tags'}, such as ${some}`;
    return new CimletError('not-found', `${name} has no tag that is ${describePolicy(policy)}: ${offered}`, {
      hint: 'change spec.policy, or push such a tag',
    });
  };

  return {
    name,
    async list(signal) {
      const { tag, warnings } = await pick(signal);
      const offers = await options.open(parseReference(`${registry}/${repository}:${tag}`)).list(signal);
      if (warnings === undefined) return offers;
      return offers.map((offer) => ({
        ...offer,
        load: async (loadSignal) => {
          const image = await offer.load(loadSignal);
          return { ...image, warnings: [...warnings, ...(image.warnings ?? [])] };
        },
      }));
    },
  };
}
