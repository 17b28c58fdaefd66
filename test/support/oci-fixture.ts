/** OCI layouts written document by document, right or wrong as a test wants them. */

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { DiffId, Digest } from '../../src/hosts/host.ts';
import { openImageSource } from '../../src/images/image-source.ts';
import { type ImageRequest, resolveImage } from '../../src/images/resolve-image.ts';
import type { ImageSource, Platform } from '../../src/images/types.ts';
import { sha256 } from './stored-blob.ts';

export const INDEX = 'application/vnd.oci.image.index.v1+json';
export const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const CONFIG = 'application/vnd.oci.image.config.v1+json';
export const LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip';

export interface Entry {
  mediaType: string;
  digest: Digest;
  size: number;
  platform?: Record<string, unknown>;
  annotations?: Record<string, string>;
  urls?: string[];
}

export interface ImageParts {
  config?: Record<string, unknown>;
  manifest?: Record<string, unknown>;
  layers?: Entry[];
}

export const never = new AbortController().signal;
/** Shows images, runs none. */
export const anyHost: ImageRequest = { host: { os: 'linux', architecture: 'amd64' } };

export class OciFixture {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
    mkdirSync(join(directory, 'blobs/sha256'), { recursive: true });
    this.write('oci-layout', { imageLayoutVersion: '1.0.0' });
  }

  write(name: string, content: unknown): void {
    const bytes = content instanceof Uint8Array ? content : JSON.stringify(content);
    writeFileSync(join(this.directory, name), bytes);
  }

  blobFile(digest: string): string {
    return join(this.directory, 'blobs', ...digest.split(':'));
  }

  addBlob(mediaType: string, content: unknown): Entry {
    const bytes = content instanceof Uint8Array ? content : Buffer.from(JSON.stringify(content));
    const digest = sha256(bytes);
    writeFileSync(this.blobFile(digest), bytes);
    return { mediaType, digest, size: bytes.length };
  }

  addLayer(content: string, mediaType = LAYER): Entry & { diffId: DiffId } {
    const tar = Buffer.alloc(1024, content);
    return { ...this.addBlob(mediaType, gzipSync(tar)), diffId: sha256(tar) };
  }

  /** A whole image; `parts` overrides members of its documents. The entry carries no platform. */
  addImage(platform: Platform, parts: ImageParts = {}): Entry {
    const layer = this.addLayer(JSON.stringify(platform));
    const { diffId, ...descriptor } = layer;
    const config = this.addBlob(CONFIG, {
      os: platform.os,
      architecture: platform.architecture,
      'os.version': platform.osVersion,
      'os.features': platform.osFeatures,
      rootfs: { type: 'layers', diff_ids: [diffId] },
      ...parts.config,
    });
    return this.addBlob(MANIFEST, {
      schemaVersion: 2,
      config,
      layers: parts.layers ?? [descriptor],
      ...parts.manifest,
    });
  }

  writeIndex(manifests: unknown[]): void {
    this.write('index.json', { schemaVersion: 2, manifests });
  }

  open(ref = ''): Promise<ImageSource> {
    return openImageSource({ ociLayout: `${this.directory}${ref}` }, '/', never);
  }

  async resolve(request: Partial<ImageRequest> = {}, ref = '') {
    return resolveImage(await this.open(ref), { ...anyHost, ...request }, never);
  }
}

/** An index entry that states its platform. */
export function withPlatform(entry: Entry, platform: Platform): Entry {
  return {
    ...entry,
    platform: {
      os: platform.os,
      architecture: platform.architecture,
      variant: platform.variant,
      'os.version': platform.osVersion,
      'os.features': platform.osFeatures,
    },
  };
}

export function withRef(entry: Entry, ref: string): Entry {
  return { ...entry, annotations: { 'org.opencontainers.image.ref.name': ref } };
}
