/** One image reference as a source of images: what is here already, or what the registry has. */

import { CimletError } from '../../errors.ts';
import type { BlobStore } from '../blob-store.ts';
import type { StoredImage } from '../index-entries.ts';
import { listOffers } from '../oci-image.ts';
import type { Descriptor, ImageBlobs, ImageOffer, ImageSource } from '../types.ts';
import type { RegistryClient } from './client.ts';
import { isKnownDocument } from './media-types.ts';
import type { Rechecks } from './rechecks.ts';
import type { ImageReference } from './reference.ts';

/**
 * `Always` asks what the tag leads to now; `IfNotPresent` when it isn't known, or was asked longer ago than the interval;
 * `Never` asks nothing at all.
 */
export type PullPolicy = 'Always' | 'IfNotPresent' | 'Never';

export interface RegistrySourceOptions {
  reference: ImageReference;
  client: RegistryClient;
  store: BlobStore;
  mayWrite: boolean;
  policy: PullPolicy;
  /** How long what a tag led to is taken to be true. */
  intervalMs: number;
  digest: string | undefined;
  rechecks: Rechecks;
  /** Milliseconds since 1970. */
  now: () => number;
  /** Told of each layer whose place is asked for. */
  onLayer: (layer: Descriptor) => void;
  /** Told how to record the image, once its layers are here. */
  onResolved: (record: () => Promise<void>) => void;
}

export function registrySource(options: RegistrySourceOptions): ImageSource {
  const { reference, client, store, policy, intervalMs, now } = options;
  const { canonical } = reference;
  const name = `image ${canonical}`;

  const blobs: ImageBlobs = {
    name,
    async fetchDocument(descriptor, signal) {
      const stored = await store.readDocument(descriptor);
      if (stored !== undefined) return stored;
      if (policy === 'Never') throw notHere(canonical);
      const bytes = await client.readDocument(descriptor, signal);
      if (options.mayWrite) await store.addDocument(descriptor.digest, bytes);
      return bytes;
    },
    async locate(layer) {
      const { digest, size } = layer;
      if (policy === 'Never' && !(await store.has(digest, size))) throw notHere(canonical);
      options.onLayer(layer);
      return { file: store.pathOf(digest), offset: 0, size };
    },
  };

  /** What is here may be taken without asking anybody. */
  const isFresh = ({ resolvedAt }: StoredImage): boolean => {
    if (policy === 'Never' || reference.digest !== undefined) return true;
    if (policy === 'Always') return false;
    // What was loaded or copied here is what somebody wanted.
    if (resolvedAt === undefined) return true;
    const age = now() - resolvedAt;
    return age >= 0 && age < intervalMs;
  };

  /** Who asks for what is here already goes on with it when nobody answers; only `Always` insists. */
  const mayGoOn = (known: StoredImage | undefined): known is StoredImage =>
    known !== undefined && policy === 'IfNotPresent';

  const ask = async (known: StoredImage | undefined, signal: AbortSignal): Promise<StoredImage> => {
    const descriptor = await client.resolve(signal, { known: known?.descriptor, once: mayGoOn(known) });
    if (!isKnownDocument(descriptor.mediaType)) {
      const kind = descriptor.mediaType || 'unknown';
      throw new CimletError('unsupported-host', `${name} is no container image, but ${kind}`);
    }
    const image = { reference: canonical, descriptor, resolvedAt: now() };
    const isUnmoved = known?.descriptor.digest === descriptor.digest;
    if (isUnmoved && options.mayWrite) await store.recordImage(image);
    return image;
  };

  /** What is called by a digest, and is another, isn't it. */
  const findKnown = async (): Promise<StoredImage | undefined> => {
    const known = await store.findImage(canonical);
    const { digest } = reference;
    return digest === undefined || digest === known?.descriptor.digest ? known : undefined;
  };

  /** What the reference leads to, by whom it is known. */
  const find = async (signal: AbortSignal): Promise<{ image: StoredImage; warnings?: string[] }> => {
    const known = await findKnown();
    const isPinned = async (image: StoredImage) =>
      options.digest === undefined ||
      meetsPin(await listOffers(blobs, [image.descriptor], signal), options.digest);
    if (known !== undefined && isFresh(known) && (policy === 'Never' || (await isPinned(known))))
      return { image: known };
    if (policy === 'Never') throw notHere(canonical);
    if (!mayGoOn(known)) return { image: await ask(known, signal) };
    const found = await options.rechecks.run(reference.registry, () => ask(known, signal));
    if ('value' in found) return { image: found.value };
    if (!(await isPinned(known))) throw found.error;
    return {
      image: known,
      warnings: [`whether ${canonical} has moved is not known: ${found.error.message}`],
    };
  };

  return {
    name,
    async list(signal) {
      const { image, warnings } = await find(signal);
      options.onResolved(() => store.recordImage(image));
      const offers = await listOffers(blobs, [image.descriptor], signal);
      return offers.map((offer) => ({
        ...offer,
        load: async (loadSignal) => {
          const found = await offer.load(loadSignal);
          const layers = found.layers.map(({ diffId, blob }) => ({
            diffId,
            blob: { ...blob, image: canonical },
          }));
          return { ...found, layers, reference: canonical, warnings };
        },
      }));
    },
    async open(signal) {
      const { image } = await find(signal);
      return { blobs, entries: [image.descriptor] };
    },
  };
}

function meetsPin(offers: readonly ImageOffer[], pin: string): boolean {
  return offers.some(({ digest, indexes }) => [...indexes, digest].some((each) => each === pin));
}

/** Says that what is asked for isn't here, where no registry may be asked. */
export function notHere(what: string): CimletError {
  return new CimletError(
    'not-found',
    `image ${what} is not, or not wholly, on this host, and no registry is to be asked`,
    {
      hint: 'plan without --offline, with a spec.pullPolicy other than Never',
    },
  );
}
