/** One image reference as a source of images: what is here already, or what the registry has. */

import { CimletError } from '../../errors.ts';
import type { BlobStore } from '../blob-store.ts';
import { type ImageBlobs, listOffers } from '../oci-image.ts';
import type { Descriptor, ImageOffer, ImageSource } from '../types.ts';
import type { ForeignLayers, RegistryClient } from './client.ts';
import { isKnownDocument } from './media-types.ts';
import type { ImageReference } from './reference.ts';

/** `Always` asks what the tag leads to now; `IfNotPresent` doesn't when it is known; `Never` asks nothing at all. */
export type PullPolicy = 'Always' | 'IfNotPresent' | 'Never';

export interface LayerToFetch {
  client: RegistryClient;
  descriptor: Descriptor;
  foreignLayers: ForeignLayers;
  /** Canonical reference. */
  image: string;
}

export interface RegistrySourceOptions {
  reference: ImageReference;
  client: RegistryClient;
  store: BlobStore;
  mayWrite: boolean;
  policy: PullPolicy;
  digest: string | undefined;
  /** Told of each layer whose place is asked for. */
  onLayer: (layer: Descriptor) => void;
  /** Told how to record the image, once its layers are here. */
  onResolved: (record: () => Promise<void>) => void;
}

export function registrySource(options: RegistrySourceOptions): ImageSource {
  const { reference, client, store, policy } = options;
  const name = `image ${reference.canonical}`;

  const blobs: ImageBlobs = {
    name,
    async fetchDocument(descriptor, signal) {
      const stored = await store.readDocument(descriptor);
      if (stored !== undefined) return stored;
      if (policy === 'Never') throw notHere(reference);
      const bytes = await client.readDocument(descriptor, signal);
      if (options.mayWrite) await store.addDocument(descriptor.digest, bytes);
      return bytes;
    },
    async locate(layer) {
      const { digest, size } = layer;
      if (policy === 'Never' && !(await store.has(digest, size))) throw notHere(reference);
      options.onLayer(layer);
      return { file: store.pathOf(digest), offset: 0, size };
    },
  };

  const offersOf = async (top: Descriptor, signal: AbortSignal): Promise<ImageOffer[]> => {
    options.onResolved(() => store.recordImage(reference.canonical, top));
    return listOffers(blobs, [top], signal);
  };

  return {
    name,
    async list(signal) {
      const known = await store.findImage(reference.canonical);
      const isFixed = policy !== 'Always' || reference.digest !== undefined;
      if (known !== undefined && isFixed) {
        const offers = await offersOf(known, signal);
        if (policy === 'Never' || meetsPin(offers, options.digest)) return offers;
      }
      if (policy === 'Never') throw notHere(reference);
      const top = await client.resolve(signal);
      if (!isKnownDocument(top.mediaType)) {
        throw new CimletError(
          'unsupported-host',
          `${name} is no container image, but ${top.mediaType || 'unknown'}`,
        );
      }
      return offersOf(top, signal);
    },
  };
}

function meetsPin(offers: readonly ImageOffer[], pin: string | undefined): boolean {
  return (
    pin === undefined ||
    offers.some(({ digest, indexes }) => [...indexes, digest].some((each) => each === pin))
  );
}

function notHere({ canonical }: ImageReference): CimletError {
  return new CimletError(
    'not-found',
    `image ${canonical} is not, or not wholly, on this host, and no registry is to be asked`,
    {
      hint: 'plan without --offline, with a spec.pullPolicy other than Never',
    },
  );
}
