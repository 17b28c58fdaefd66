/** Images of registries: resolved by documents alone, layers fetched into the blob store when they are asked for. */

import { homedir } from 'node:os';
import { join } from 'node:path';
import { CimletError } from '../../errors.ts';
import type { Digest, EffectContext, LayerBlob } from '../../hosts/host.ts';
import type { BlobStore } from '../blob-store.ts';
import type { BlobIngest } from '../blob-store-ingest.ts';
import { contentBytes, type ImageContent } from '../content.ts';
import { type FoundSignatures, findSignatures } from '../signatures/find-signatures.ts';
import type { ImageSource } from '../types.ts';
import { createAuthorizer } from './authorizer.ts';
import { type ForeignLayers, findBlobPlaces } from './blob-places.ts';
import { RegistryClient } from './client.ts';
import { type CredentialRule, findCredentials } from './credentials.ts';
import { downloadBlob } from './download.ts';
import { findEndpoints } from './endpoints.ts';
import type { RegistryServices } from './exchange.ts';
import { createHttpClient } from './http.ts';
import { firstThatHasIt, KnownLayers, type LayerToFetch } from './known-layers.ts';
import { MINIMUM_RATE, type MinimumRate } from './minimum-rate.ts';
import { type PickedTags, pickedSource } from './picked-source.ts';
import { proxySettingsOf } from './proxies.ts';
import { pushImage } from './push.ts';
import { RateLimit } from './rate-limit.ts';
import { Rechecks } from './rechecks.ts';
import { type ImageReference, parseReference } from './reference.ts';
import { type PullPolicy, registrySource } from './registry-source.ts';
import { RestingHosts } from './resting-hosts.ts';
import { type Backoff, DEFAULT_BACKOFF } from './retry.ts';
import type { TagPolicy } from './tag-policy.ts';
import { TransferSlots } from './transfer-slots.ts';

export interface RegistryOptions {
  store: BlobStore;
  /** False where nothing may be written: what is fetched is then forgotten. */
  mayWrite: boolean;
  /** containerd's certs.d. */
  configPath?: string | undefined;
  credentials?: readonly CredentialRule[] | undefined;
  limits?: RegistryLimits | undefined;
  env: Readonly<Record<string, string | undefined>>;
  backoff?: Partial<Backoff> | undefined;
  minimumRate?: MinimumRate | undefined;
  /** Milliseconds since 1970; only tests say. */
  now?: (() => number) | undefined;
}

export interface RegistryLimits {
  /** Layers fetched at the same time from one registry. */
  connections?: number | undefined;
  /** From all of them. */
  connectionsInAll?: number | undefined;
  retries?: number | undefined;
  /** All registries together; default: as fast as they come. */
  bytesPerSecond?: number | undefined;
  /** Of the largest layer that is fetched, compressed. */
  layerBytes?: number | undefined;
}

export interface RegistryImage {
  reference: string;
  policy: PullPolicy;
  foreignLayers: ForeignLayers;
  /** How long what a tag led to is taken to be true; default: an hour. */
  intervalMs?: number | undefined;
  /** Picks the tag; the reference's own says nothing then. */
  tags?: TagPolicy | undefined;
  /** A pin that, when what is here doesn't meet it, is worth asking the registry. */
  digest: string | undefined;
}

/** The registries of one session: their connections, tokens, and the layers they are known to have. */
export interface Registries {
  source(image: RegistryImage): ImageSource;
  /** Brings a layer here that an image resolved in this session has; one that no registry is known for is left alone. */
  fetchLayer(blob: LayerBlob, effect: EffectContext): Promise<void>;
  /** Remembers that all of the image resolved last for this is here. */
  recordImage(image: Pick<RegistryImage, 'reference' | 'tags'>): Promise<void>;
  /** What signs images of a repository, with any of these digests. */
  findSignatures(
    reference: string,
    digests: readonly Digest[],
    signal: AbortSignal,
  ): Promise<FoundSignatures>;
  /** Pushes an image under a reference. */
  push(image: PushedImage, effect: EffectContext): Promise<void>;
  close(): Promise<void>;
}

export interface PushedImage {
  reference: string;
  content: ImageContent;
}

const INTERVAL_MS = 3_600_000;
const CONNECTIONS_PER_HOST = 4;
const CONNECTIONS_IN_ALL = 8;
/** Below this bound, transfers are as slow as they were asked to be. */
const SLOW_BOUND = 1 << 20;

export function openRegistries(options: RegistryOptions): Registries {
  const { store, env, limits = {}, now = Date.now } = options;
  const http = createHttpClient(proxySettingsOf(env), options.minimumRate);
  const credentials = {
    rules: options.credentials ?? [],
    defaultDockerConfig: join(env.DOCKER_CONFIG || join(homedir(), '.docker'), 'config.json'),
    env,
  };
  const backoff = {
    ...DEFAULT_BACKOFF,
    ...(limits.retries === undefined ? {} : { retries: limits.retries }),
    ...options.backoff,
  };
  const slots = new TransferSlots({
    perHost: limits.connections ?? CONNECTIONS_PER_HOST,
    inAll: limits.connectionsInAll ?? CONNECTIONS_IN_ALL,
  });
  const { bytesPerSecond, layerBytes = Number.POSITIVE_INFINITY } = limits;
  const rate = bytesPerSecond === undefined ? undefined : new RateLimit(bytesPerSecond);
  const services: RegistryServices = {
    http,
    authorizer: createAuthorizer(http, (host, signal) => findCredentials(host, credentials, signal)),
    backoff,
    resting: new RestingHosts(backoff.patienceMs),
    // Read each time: a session may last, and hosts.toml change.
    findEndpoints: (registry) => findEndpoints(registry, options.configPath),
  };
  const isSlow = bytesPerSecond !== undefined && bytesPerSecond < SLOW_BOUND;
  const minimumRate = options.minimumRate ?? { ...MINIMUM_RATE, ...(isSlow ? { bytes: 0 } : {}) };
  const layers = new KnownLayers(now);
  const resolved = new Map<string, () => Promise<void>>();
  const rechecks = new Rechecks(now);
  const picked: PickedTags = new Map();

  const fetchLayer = async (
    { digest, size }: LayerBlob,
    known: readonly LayerToFetch[],
    { signal, progress }: EffectContext,
  ): Promise<void> => {
    const onProgress = (received: number) =>
      progress?.({ phase: 'downloading', done: received, total: size });
    if (size > layerBytes) {
      throw new CimletError(
        'failed-precondition',
        `layer ${digest} of ${known[0]?.reference.canonical} has ${size} bytes, allowed are ${layerBytes}`,
        { hint: 'raise registry.limits.layerSize in cimlet.yaml' },
      );
    }
    const fill = async (ingest: BlobIngest) => {
      onProgress(ingest.received);
      const common = { slots, rate, minimumRate, signal, onProgress };
      await firstThatHasIt(known, ingest, async (layer, isFirst) => {
        const { descriptor, foreignLayers, reference } = layer;
        // Another image's URLs are nothing that this one has asked for.
        const policy = isFirst ? foreignLayers : 'never';
        const places = await findBlobPlaces(services, reference, descriptor, policy);
        await downloadBlob(ingest, {
          ...common,
          backoff: isFirst ? backoff : { ...backoff, retries: 0 },
          places,
          image: reference.canonical,
        });
      });
    };
    await store.addBlob({ digest, size }, fill, signal);
    onProgress(size);
  };

  return {
    source(image) {
      const { intervalMs = INTERVAL_MS, tags, ...rest } = image;
      const common = { ...rest, intervalMs, store, mayWrite: options.mayWrite, rechecks, now };
      const open = (reference: ImageReference) => {
        const client = new RegistryClient(reference, services);
        const { foreignLayers } = image;
        return registrySource({
          ...common,
          reference,
          client,
          onLayer: (descriptor) => layers.add({ descriptor, foreignLayers, reference }),
          onResolved: (record) => resolved.set(identityOf(image), record),
        });
      };
      const reference = parseReference(image.reference);
      if (tags === undefined) return open(reference);
      return pickedSource({
        ...common,
        reference,
        tags,
        client: new RegistryClient(reference, services),
        picked,
        open,
      });
    },
    async fetchLayer(blob, effect) {
      const known = layers.find(blob.digest, blob.image);
      if (known.length > 0 && blob.file === store.pathOf(blob.digest)) await fetchLayer(blob, known, effect);
    },
    async recordImage(image) {
      await resolved.get(identityOf(image))?.();
    },
    async findSignatures(text, digests, signal) {
      const reference = parseReference(text);
      const openTag = (tag: string) => new RegistryClient({ ...reference, tag, digest: undefined }, services);
      return findSignatures(digests, { client: new RegistryClient(reference, services), openTag }, signal);
    },
    async push({ reference, content }, { signal, progress }) {
      const total = contentBytes(content);
      let done = 0;
      const onBytes = (bytes: number) => {
        done += bytes;
        progress?.({ phase: 'exporting', done, total });
      };
      await pushImage({ reference: parseReference(reference), content, services, signal, onBytes });
    },
    close: () => http.close(),
  };
}

function identityOf({ reference, tags }: Pick<RegistryImage, 'reference' | 'tags'>): string {
  return JSON.stringify([parseReference(reference).canonical, tags]);
}
