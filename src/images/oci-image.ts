/** Images made of OCI (or docker schema 2) documents, wherever their blobs are. */

import { CimletError } from '../errors.ts';
import type { Digest, LayerBlob } from '../hosts/host.ts';
import { type FileRange, readDocument } from './bundle.ts';
import { DigestCheck } from './digest.ts';
import { type ImageConfig, parseConfig, parseIndex, parseManifest } from './documents.ts';
import type { Descriptor, ImageBlobs, ImageOffer, Platform, ResolvedImage } from './types.ts';

export const MEDIA_TYPES = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  layer: 'application/vnd.oci.image.layer.v1.tar',
  dockerLayer: 'application/vnd.docker.image.rootfs.diff.tar',
} as const;

const INDEXES: readonly string[] = [
  MEDIA_TYPES.index,
  'application/vnd.docker.distribution.manifest.list.v2+json',
];
const MANIFESTS: readonly string[] = [
  MEDIA_TYPES.manifest,
  'application/vnd.docker.distribution.manifest.v2+json',
];
/** Whether a descriptor leads to several images. */
export function isIndex({ mediaType }: Descriptor): boolean {
  return INDEXES.includes(mediaType);
}

const CONFIGS: readonly string[] = [MEDIA_TYPES.config, 'application/vnd.docker.container.image.v1+json'];
/** Nondistributable and foreign layers are deprecated, but the base layers of older Windows images are that. */
const LAYER =
  /^application\/vnd\.(oci\.image\.layer\.(nondistributable\.)?v1\.tar(\+gzip|\+zstd)?|docker\.image\.rootfs\.(foreign\.)?diff\.tar(\.gzip|\.zstd)?)$/;

/**
 * The images that `descriptors` lead to, through any indexes. What is no image (signatures, attestations, other
 * artifacts) is left out, and so is anything listed twice.
 */
export async function listOffers(
  store: ImageBlobs,
  descriptors: readonly Descriptor[],
  signal: AbortSignal,
): Promise<ImageOffer[]> {
  const offers: ImageOffer[] = [];
  const seen = new Set<string>();

  async function visit(descriptor: Descriptor, indexes: Digest[]): Promise<void> {
    throwIfAborted(signal, store);
    // One manifest may serve several platforms; one index, read twice, says the same.
    const identity = `${descriptor.digest} ${isIndex(descriptor) ? '' : JSON.stringify(descriptor.platform ?? null)}`;
    if (seen.has(identity)) return;
    seen.add(identity);
    if (isIndex(descriptor)) {
      const { name, bytes } = await readVerified(store, 'index', descriptor, signal);
      for (const entry of parseIndex(bytes, name).manifests)
        await visit(entry, [...indexes, descriptor.digest]);
    } else if (MANIFESTS.includes(descriptor.mediaType)) {
      const platform = descriptor.platform ?? (await platformOf(store, descriptor, signal));
      if (platform === undefined || platform.os === 'unknown') return;
      const load = (loadSignal: AbortSignal) => loadImage(store, descriptor, loadSignal);
      offers.push({
        digest: descriptor.digest,
        manifest: descriptor,
        indexes,
        ref: refOf(descriptor),
        platform,
        load,
      });
    }
  }

  for (const descriptor of descriptors) await visit(descriptor, []);
  return offers;
}

/** The tag of a descriptor in an index. */
export function refOf(descriptor: Descriptor): string | undefined {
  return descriptor.annotations['org.opencontainers.image.ref.name'];
}

/** From the configuration, for descriptors without one; undefined for what is no image. */
async function platformOf(
  store: ImageBlobs,
  descriptor: Descriptor,
  signal: AbortSignal,
): Promise<Platform | undefined> {
  const { name, bytes } = await readVerified(store, 'manifest', descriptor, signal);
  const { config } = parseManifest(bytes, name);
  if (!CONFIGS.includes(config.mediaType)) return undefined;
  return (await readConfig(store, config, signal)).platform;
}

async function loadImage(
  store: ImageBlobs,
  descriptor: Descriptor,
  signal: AbortSignal,
): Promise<ResolvedImage> {
  const { name, bytes } = await readVerified(store, 'manifest', descriptor, signal);
  const manifest = parseManifest(bytes, name);
  if (!CONFIGS.includes(manifest.config.mediaType)) {
    throw new CimletError(
      'corrupt',
      `${name}: no container image, its config is ${manifest.config.mediaType}`,
    );
  }
  const { platform, diffIds } = await readConfig(store, manifest.config, signal);
  if (diffIds.length !== manifest.layers.length) {
    throw new CimletError(
      'corrupt',
      `${name}: ${manifest.layers.length} layers, but its configuration has ${diffIds.length} diff IDs`,
    );
  }
  const layers: ResolvedImage['layers'] = [];
  for (const [index, diffId] of diffIds.entries()) {
    const layer = manifest.layers[index] as Descriptor;
    layers.push({ diffId, blob: await locateLayer(store, layer, `layer ${index + 1} of ${name}`, signal) });
  }
  return {
    digest: descriptor.digest,
    platform: { os: platform.os, architecture: platform.architecture, osVersion: platform.osVersion },
    layers,
    bytes: layers.reduce((total, { blob }) => total + blob.size, 0),
    readConfig: async (later) => (await readVerified(store, 'configuration', manifest.config, later)).bytes,
  };
}

async function readConfig(
  store: ImageBlobs,
  descriptor: Descriptor,
  signal: AbortSignal,
): Promise<ImageConfig> {
  const { name, bytes } = await readVerified(store, 'configuration', descriptor, signal);
  return parseConfig(bytes, name);
}

async function locateLayer(
  store: ImageBlobs,
  layer: Descriptor,
  name: string,
  signal: AbortSignal,
): Promise<LayerBlob> {
  if (!LAYER.test(layer.mediaType)) {
    const reason = layer.mediaType.includes('encrypted')
      ? 'is encrypted'
      : "has a media type cimlet doesn't know";
    throw new CimletError('unsupported-host', `${name} ${reason}: ${layer.mediaType || 'none'}`);
  }
  const range = await locate(store, layer, name, signal);
  return { ...range, digest: layer.digest, mediaType: layer.mediaType };
}

/** The blob's bytes, there in full. */
export async function locate(
  store: ImageBlobs,
  descriptor: Descriptor,
  name: string,
  signal: AbortSignal,
): Promise<FileRange> {
  throwIfAborted(signal, store);
  const range = await store.locate(descriptor, signal);
  if (range === undefined) {
    throw new CimletError('not-found', `missing blob ${descriptor.digest} (${name})`, {
      hint:
        descriptor.urls.length > 0
          ? `it is distributed apart from the image: put ${descriptor.urls.join(' or ')} there`
          : 'copy the image again, for all platforms or for this one',
    });
  }
  if (range.size !== descriptor.size) {
    throw new CimletError(
      'corrupt',
      `blob ${descriptor.digest} (${name}) has ${range.size} bytes, declared are ${descriptor.size}`,
      { hint: 'the blob is damaged or incomplete; copy or download the image again' },
    );
  }
  return range;
}

/** An index, manifest or configuration, its digest checked; `kind` is how errors call it. */
export async function readVerified(
  store: ImageBlobs,
  kind: string,
  descriptor: Descriptor,
  signal: AbortSignal,
): Promise<{ name: string; bytes: Buffer }> {
  const name = `${kind} ${descriptor.digest} of ${store.name}`;
  const bytes =
    (await store.fetchDocument?.(descriptor, signal)) ??
    (await readDocument(await locate(store, descriptor, name, signal), name));
  const check = new DigestCheck(descriptor.digest);
  check.update(bytes);
  const found = check.mismatch();
  if (found !== undefined) {
    throw new CimletError('corrupt', `${name}: its bytes have digest ${found}`, {
      hint: 'the blob is damaged; copy or download the image again',
    });
  }
  return { name, bytes };
}

function throwIfAborted(signal: AbortSignal, store: ImageBlobs): void {
  if (signal.aborted)
    throw new CimletError('cancelled', `read ${store.name}: cancelled`, { cause: signal.reason });
}
