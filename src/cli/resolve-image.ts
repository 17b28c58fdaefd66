/** Image resources -> images: `spec.source` opened, the platform chosen for a host, layers fetched when needed. */

import { join } from 'node:path';
import type { HostState } from '../hosts/host.ts';
import { type BlobStore, openBlobStore } from '../images/blob-store.ts';
import { LocalImages } from '../images/local-images.ts';
import { openRegistries } from '../images/registry/registries.ts';
import { resolveImage } from '../images/resolve-image.ts';
import { RequiredSignatures } from '../images/signatures/required-signatures.ts';
import { PublicRoot } from '../images/signatures/trusted-root.ts';
import type { HostPlatform, ImageSource } from '../images/types.ts';
import { parseDuration } from '../manifests/quantities.ts';
import type { ImageResource } from '../manifests/resources.ts';
import type { DiscardDamaged, FetchLayer, RecordImage, ResolveImage } from '../reconciler/perform-context.ts';
import type { RegistrySettings } from './registry-settings.ts';

export interface ImageAccess {
  readonly store: BlobStore;
  resolveImage: ResolveImage;
  fetchLayer: FetchLayer;
  recordImage: RecordImage;
  discardDamaged: DiscardDamaged;
  close(): Promise<void>;
}

export interface ImageAccessOptions {
  /** What the images are for: this machine, or the one whose observed state is planned against. */
  platform: HostPlatform;
  root: string;
  /** `none`: what is in the root says nothing, as when planning for another machine. */
  store: 'none' | 'read' | 'write';
  /** No registry is asked. */
  offline?: boolean | undefined;
  registry: RegistrySettings;
}

/** Images fetched from registries are in `<root>/images`. */
export function openImageAccess(options: ImageAccessOptions): ImageAccess {
  const store = openBlobStore(join(options.root, 'images'), { isEmpty: options.store === 'none' });
  const mayWrite = options.store === 'write';
  const offline = options.offline === true;
  const registries = openRegistries({ ...options.registry, store, mayWrite });

  const local = new LocalImages();
  const publicRoot = new PublicRoot({ directory: join(store.directory, 'tuf'), mayWrite, offline });
  const signatures = new RequiredSignatures({ registries, store, mayWrite, offline, publicRoot });

  const openRegistry = (image: ImageResource, reference: string): ImageSource => {
    const { pullPolicy = 'IfNotPresent', foreignLayers = 'registry-first', digest, interval } = image.spec;
    return registries.source({
      reference,
      policy: offline ? 'Never' : pullPolicy,
      foreignLayers,
      intervalMs: interval === undefined ? undefined : parseDuration(interval),
      tags: image.spec.policy,
      digest,
    });
  };

  return {
    store,
    async resolveImage(image, signal) {
      const { source, platform, digest, verify } = image.spec;
      const request = { platform, digest, host: options.platform };
      const resolved =
        source.registry === undefined
          ? await local.resolve(source, image.baseDirectory, request, signal)
          : await resolveImage(openRegistry(image, source.registry), request, signal);
      if (verify === undefined) return resolved;
      return signatures.require(resolved, { spec: verify, baseDirectory: image.baseDirectory }, signal);
    },
    fetchLayer: (blob, effect) => registries.fetchLayer(blob, effect),
    async recordImage({ spec: { source, policy } }) {
      if (source.registry !== undefined)
        await registries.recordImage({ reference: source.registry, tags: policy });
    },
    async discardDamaged({ file, digest }, signal) {
      if (file === store.pathOf(digest)) await store.discardIfDamaged(digest, signal);
    },
    close: () => registries.close(),
  };
}

/** What images are for on an observed host. Only Windows runs them, and has rules about their version. */
export function platformOf({ host }: HostState): HostPlatform {
  const platform = { os: 'windows', architecture: host.architecture };
  return host.kind === 'windows' ? { ...platform, osVersion: host.osVersion } : platform;
}
