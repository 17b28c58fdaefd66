/** Writes OCI layouts. The same layers give the same bytes: no clock, no randomness. */

import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip, createZstdCompress } from 'node:zlib';
import { classify } from '../errors.ts';
import type { DiffId, Digest } from '../hosts/host.ts';
import type { Compression } from './decode.ts';
import { digestOf } from './digest.ts';
import { MEDIA_TYPES } from './oci-image.ts';
import type { Platform } from './types.ts';

export interface LayerToWrite {
  /** A tar file, or its bytes. */
  tar: string | AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
  compression: Compression;
}

export interface ImageToWrite {
  /** Base first. */
  layers: LayerToWrite[];
  platform: Platform;
  /** The configuration's member `config`: what a container of this image starts with. */
  config?: Record<string, unknown> | undefined;
  /** The configuration of the image that this one is made of; all of it but its layers and platform stays. */
  origin?: Record<string, unknown> | undefined;
  /** Tag. */
  ref?: string | undefined;
}

export interface WrittenImage {
  /** Of the manifest. */
  digest: Digest;
  layers: { digest: Digest; diffId: DiffId; size: number }[];
}

interface WrittenBlob {
  mediaType: string;
  digest: Digest;
  size: number;
}

/** Writes one image, or several into one index, in place of what the directory's index.json listed before. */
export async function writeOciLayout(
  directory: string,
  images: ImageToWrite | ImageToWrite[],
): Promise<WrittenImage[]> {
  try {
    await mkdir(join(directory, 'blobs/sha256'), { recursive: true });
    const written: WrittenImage[] = [];
    const manifests: unknown[] = [];
    for (const image of [images].flat()) {
      const { entry, ...result } = await writeImage(directory, image);
      manifests.push(entry);
      written.push(result);
    }
    await writeFile(join(directory, 'oci-layout'), toJson({ imageLayoutVersion: '1.0.0' }));
    await writeFile(
      join(directory, 'index.json'),
      toJson({ schemaVersion: 2, mediaType: MEDIA_TYPES.index, manifests }),
    );
    return written;
  } catch (error) {
    throw classify(error, `write OCI layout ${directory}`);
  }
}

async function writeImage(
  directory: string,
  { layers: wanted, platform, config, origin, ref }: ImageToWrite,
): Promise<WrittenImage & { entry: unknown }> {
  const layers: (WrittenBlob & { diffId: DiffId })[] = [];
  for (const layer of wanted) layers.push(await writeLayer(directory, layer));
  const platformMembers = toPlatform(platform);
  const configBlob = await writeDocument(directory, MEDIA_TYPES.config, {
    ...origin,
    ...platformMembers,
    config: config ?? origin?.config,
    rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
  });
  const manifest = await writeDocument(directory, MEDIA_TYPES.manifest, {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.manifest,
    config: configBlob,
    layers: layers.map(({ mediaType, digest, size }) => ({ mediaType, digest, size })),
  });
  const annotations = ref === undefined ? undefined : { 'org.opencontainers.image.ref.name': ref };
  return {
    digest: manifest.digest,
    layers: layers.map(({ digest, diffId, size }) => ({ digest, diffId, size })),
    entry: { ...manifest, platform: platformMembers, annotations },
  };
}

async function writeLayer(
  directory: string,
  { tar, compression }: LayerToWrite,
): Promise<WrittenBlob & { diffId: DiffId }> {
  const content = createHash('sha256');
  const stored = createHash('sha256');
  let size = 0;
  const temporary = join(directory, 'blobs', `tmp-${process.pid}`);

  async function* hashContent(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunks) {
      content.update(chunk);
      yield chunk;
    }
  }
  async function* hashStored(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunks) {
      stored.update(chunk);
      size += chunk.length;
      yield chunk;
    }
  }

  const input =
    typeof tar === 'string' ? createReadStream(tar, { highWaterMark: 1 << 20 }) : Readable.from(tar);
  const output = createWriteStream(temporary);
  try {
    if (compression === 'none') await pipeline(input, hashContent, hashStored, output);
    else if (compression === 'gzip') await pipeline(input, hashContent, createGzip(), hashStored, output);
    else await pipeline(input, hashContent, createZstdCompress(), hashStored, output);
    const digest = `sha256:${stored.digest('hex')}` as Digest;
    await rename(temporary, blobPath(directory, digest));
    const mediaType = compression === 'none' ? MEDIA_TYPES.layer : `${MEDIA_TYPES.layer}+${compression}`;
    return { mediaType, digest, size, diffId: `sha256:${content.digest('hex')}` as DiffId };
  } finally {
    await rm(temporary, { force: true });
  }
}

async function writeDocument(directory: string, mediaType: string, content: unknown): Promise<WrittenBlob> {
  const bytes = Buffer.from(toJson(content));
  const digest = digestOf(bytes);
  await writeFile(blobPath(directory, digest), bytes);
  return { mediaType, digest, size: bytes.length };
}

function blobPath(directory: string, digest: Digest): string {
  return join(directory, 'blobs', ...digest.split(':'));
}

function toPlatform({ os, architecture, variant, osVersion, osFeatures }: Platform): Record<string, unknown> {
  return { architecture, os, variant, 'os.version': osVersion, 'os.features': osFeatures };
}

function toJson(value: unknown): string {
  return JSON.stringify(value);
}
