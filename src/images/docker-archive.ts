/**
 * Images in an archive written by `docker save` (or skopeo's docker-archive): manifest.json names a configuration and
 * layers by member. There are no manifest digests; the image's digest is its configuration's, docker's image ID.
 * Source: docker image spec v1.2, "Combined Image JSON + Filesystem Changeset Format".
 */

import { createReadStream } from 'node:fs';
import { CimletError, classify } from '../errors.ts';
import type { DiffId, Digest, LayerBlob } from '../hosts/host.ts';
import { type Bundle, type FileRange, readDocument, readRange } from './bundle.ts';
import type { ImageContent } from './content.ts';
import { detectCompression } from './decode.ts';
import { digestOf, digestOfStream, isDigest } from './digest.ts';
import { type DockerArchiveEntry, type ImageConfig, parseConfig, parseDockerManifest } from './documents.ts';
import { MEDIA_TYPES } from './oci-image.ts';
import type { Descriptor, ImageOffer, ImageSource, ResolvedImage } from './types.ts';

/** `ref` is one of the names in RepoTags. Without one the archive must hold a single image. */
export function dockerArchiveSource(bundle: Bundle, ref: string | undefined): ImageSource {
  const name = `docker archive ${bundle.path}`;
  return {
    name,
    async list() {
      const chosen = choose(await readEntries(bundle), ref, name);
      return Promise.all(chosen.map((entry) => readOffer(bundle, entry)));
    },
  };
}

/**
 * The archive's image as OCI content: a manifest that names its configuration and layers as they are. The same archive
 * always gives the same manifest.
 */
export async function dockerArchiveContent(
  bundle: Bundle,
  ref: string | undefined,
  signal: AbortSignal,
): Promise<ImageContent & { tag: string | undefined }> {
  const [entry] = choose(await readEntries(bundle), ref, `docker archive ${bundle.path}`);
  if (entry === undefined) throw new CimletError('not-found', `docker archive ${bundle.path} holds no image`);
  const offer = await readOffer(bundle, entry);
  const { layers } = await offer.load(signal);
  const range = await bundle.find(entry.config);
  if (range === undefined) throw new Error(`${entry.config} was read and is gone`);
  const config = describe(MEDIA_TYPES.config, offer.digest, range.size);
  const blobs = layers.map(({ blob }) => ({
    descriptor: describe(
      blob.mediaType.replace(MEDIA_TYPES.dockerLayer, MEDIA_TYPES.layer).replace(/\.(gzip|zstd)$/, '+$1'),
      blob.digest,
      blob.size,
    ),
    range: blob,
  }));
  const members = ({ mediaType, digest, size }: Descriptor) => ({ mediaType, digest, size });
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.manifest,
      config: members(config),
      layers: blobs.map(({ descriptor }) => members(descriptor)),
    }),
  );
  const top = describe(MEDIA_TYPES.manifest, digestOf(manifest), manifest.length);
  const unique = new Map(
    [{ descriptor: config, range }, ...blobs].map((blob) => [blob.descriptor.digest, blob]),
  );
  return {
    top,
    documents: [{ descriptor: top, bytes: manifest }],
    blobs: [...unique.values()],
    tag: entry.repoTags[0],
  };
}

/** What its images are called, each name once; `unnamed` counts images that have none. */
export async function listArchiveNames(bundle: Bundle): Promise<{ names: string[]; unnamed: number }> {
  const entries = await readEntries(bundle);
  return {
    names: [...new Set(entries.flatMap(({ repoTags }) => repoTags))],
    unnamed: entries.filter(({ repoTags }) => repoTags.length === 0).length,
  };
}

async function readEntries(bundle: Bundle): Promise<DockerArchiveEntry[]> {
  const bytes = await readMember(bundle, 'manifest.json');
  return parseDockerManifest(bytes, `${bundle.path}/manifest.json`);
}

function describe(mediaType: string, digest: Digest, size: number): Descriptor {
  return { mediaType, digest, size, urls: [], annotations: {} };
}

function choose(entries: DockerArchiveEntry[], ref: string | undefined, name: string): DockerArchiveEntry[] {
  const named = entries.filter(({ repoTags }) =>
    repoTags.some((tag) => shortName(tag) === shortName(ref ?? '')),
  );
  const tags = entries.flatMap(({ repoTags }) => repoTags).join(', ') || 'none';
  if (ref !== undefined && named.length === 0) {
    throw new CimletError('not-found', `${name} has no image \`${ref}\``, { hint: `it has ${tags}` });
  }
  if (ref === undefined && entries.length > 1) {
    throw new CimletError('not-found', `${name} holds several images, and none is named`, {
      hint: `add one to the path, as in path:name:tag; it has ${tags}`,
    });
  }
  return ref === undefined ? entries : named;
}

/** `docker.io/library/app:latest` and `app` are the same image to docker. */
function shortName(ref: string): string {
  const short = ref.replace(/^(docker\.io\/)?(library\/)?/, '');
  return /:[^/]*$/.test(short) ? short : `${short}:latest`;
}

async function readOffer(bundle: Bundle, entry: DockerArchiveEntry): Promise<ImageOffer> {
  const bytes = await readMember(bundle, entry.config);
  const digest = digestOf(bytes);
  const claimed = digestInName(entry.config);
  if (claimed !== undefined && claimed !== digest) {
    throw new CimletError('corrupt', `${bundle.path}/${entry.config}: its bytes have digest ${digest}`);
  }
  const config = parseConfig(bytes, `${bundle.path}/${entry.config}`);
  return {
    digest,
    indexes: [],
    ref: entry.repoTags[0],
    platform: config.platform,
    load: (signal) => loadImage(bundle, entry, digest, config, signal),
  };
}

async function loadImage(
  bundle: Bundle,
  entry: DockerArchiveEntry,
  digest: Digest,
  { platform, diffIds }: ImageConfig,
  signal: AbortSignal,
): Promise<ResolvedImage> {
  if (diffIds.length !== entry.layers.length) {
    throw new CimletError(
      'corrupt',
      `${bundle.path}/manifest.json: ${entry.layers.length} layers, but ${entry.config} has ${diffIds.length} diff IDs`,
    );
  }
  const layers: ResolvedImage['layers'] = [];
  for (const [index, diffId] of diffIds.entries()) {
    const member = entry.layers[index] as string;
    layers.push({ diffId, blob: await describeLayer(bundle, member, diffId, signal) });
  }
  return {
    digest,
    platform: { os: platform.os, architecture: platform.architecture, osVersion: platform.osVersion },
    layers,
    bytes: layers.reduce((total, { blob }) => total + blob.size, 0),
    readConfig: () => readMember(bundle, entry.config),
  };
}

/** A plain layer's digest is its diff ID; a compressed one's is in its name, or else must be computed. */
async function describeLayer(
  bundle: Bundle,
  member: string,
  diffId: DiffId,
  signal: AbortSignal,
): Promise<LayerBlob> {
  const name = `${bundle.path}/${member}`;
  const range = await bundle.find(member);
  if (range === undefined) {
    throw new CimletError('not-found', `missing layer ${member} of docker archive ${bundle.path}`);
  }
  const compression = detectCompression(await readRange(range, 4, name));
  if (compression === 'none')
    return { ...range, digest: diffId as string as Digest, mediaType: MEDIA_TYPES.dockerLayer };
  const digest = digestInName(member) ?? (await hashRange(range, name, signal));
  return { ...range, digest, mediaType: `${MEDIA_TYPES.dockerLayer}.${compression}` };
}

async function hashRange(
  { file, offset, size }: FileRange,
  name: string,
  signal: AbortSignal,
): Promise<Digest> {
  try {
    const options = { start: offset, end: offset + size - 1, highWaterMark: 1 << 20, signal };
    return await digestOfStream(createReadStream(file, options));
  } catch (error) {
    throw classify(error, `hash ${name}`);
  }
}

/** docker 25 and later name members as an OCI layout does. */
function digestInName(member: string): Digest | undefined {
  const match = /^(?:blobs\/sha256\/([0-9a-f]{64})|([0-9a-f]{64})\.json)$/.exec(member);
  const digest = `sha256:${match?.[1] ?? match?.[2]}`;
  return isDigest(digest) ? digest : undefined;
}

async function readMember(bundle: Bundle, member: string): Promise<Buffer> {
  const range = await bundle.find(member);
  if (range === undefined) {
    throw new CimletError('not-found', `${bundle.path} is no docker archive: it has no file ${member}`, {
      hint: 'for an OCI layout, use ociLayout instead of dockerArchive',
    });
  }
  return readDocument(range, `${bundle.path}/${member}`);
}
