/** What images are to the rest of cimlet: platforms, sources, and what choosing among them yields. */

import type { DiffId, Digest, LayerBlob } from '../hosts/host.ts';
import type { FileRange } from './bundle.ts';

export interface Platform {
  os: string;
  architecture: string;
  variant?: string | undefined;
  /** `os.version`, e.g. 10.0.26100.1742. */
  osVersion?: string | undefined;
  osFeatures?: string[] | undefined;
}

/** Part of `spec.platform`; what is absent doesn't constrain. */
export type PlatformWish = { [Key in keyof Platform]?: Platform[Key] | undefined };

/** What the images are for: without `osVersion` (nothing will be run, only shown) any Windows version does. */
export interface HostPlatform {
  os: string;
  architecture: string;
  osVersion?: string | undefined;
  /** Default: all that a full Windows has. */
  osFeatures?: string[] | undefined;
}

/** A reference from one document or file to another. Source: OCI image-spec v1.1, descriptor.md. */
export interface Descriptor {
  mediaType: string;
  digest: Digest;
  size: number;
  urls: string[];
  annotations: Record<string, string>;
  /** Of what is no image, in a list of referrers. */
  artifactType?: string | undefined;
  platform?: Platform | undefined;
}

/** What a reference led to, and the entity tag with which that host answered. */
export interface TaggedDescriptor extends Descriptor {
  etag?: { host: string; value: string } | undefined;
}

/** One image among those a source holds. */
export interface ImageOffer {
  /** Of its manifest; of its configuration in a docker archive, which has no manifest digests. */
  digest: Digest;
  /** What leads to the manifest; a docker archive has none. */
  manifest?: Descriptor | undefined;
  /** Digests of the indexes that lead to it, outermost first: a pin may name any of them. */
  indexes: Digest[];
  /** Tag or name, where the source gives one. */
  ref?: string | undefined;
  platform: Platform;
  /** Reads its configuration and finds its layer blobs; each is there with the size declared. */
  load(signal: AbortSignal): Promise<ResolvedImage>;
}

/** Where the blobs of an image are. */
export interface ImageBlobs {
  /** As messages name it. */
  readonly name: string;
  /** The stored bytes of a blob, not verified; undefined when it isn't there. */
  locate(descriptor: Descriptor, signal: AbortSignal): Promise<FileRange | undefined>;
  /** A document's bytes, where documents are not read from the files that `locate` finds. */
  fetchDocument?(descriptor: Descriptor, signal: AbortSignal): Promise<Buffer>;
}

/** What one reference leads to: an index or a manifest, or one manifest for each platform. */
export interface OpenedImage {
  blobs: ImageBlobs;
  entries: Descriptor[];
}

/** Where images come from. Everything it hands out was checked against its digest, except layer blobs. */
export interface ImageSource {
  /** As messages name it, e.g. `OCI layout /images/app`. */
  readonly name: string;
  /** The images to choose from: those with the tag asked for, or all. */
  list(signal: AbortSignal): Promise<ImageOffer[]>;
  /** What the reference leads to, for copying it as it is; a docker archive has nothing of the kind. */
  open?(signal: AbortSignal): Promise<OpenedImage>;
}

/** What an Image resolved to, without any host: enough to name its layers and find their bytes. */
export interface ResolvedImage {
  /** Digest of the manifest chosen; of the configuration for a docker archive. */
  digest: Digest;
  /** As the image's configuration states it. */
  platform: { os: string; architecture: string; osVersion?: string | undefined };
  /** Base first. */
  layers: { diffId: DiffId; blob: LayerBlob }[];
  /** Bytes of all layer blobs. */
  bytes: number;
  /** Digests of the indexes that led to it: a signature of one of them covers it. */
  indexes?: Digest[] | undefined;
  /** What led to it, where a registry did: `docker.io/library/app:1.4.2`. */
  reference?: string | undefined;
  /** Its whole configuration, which is JSON, from where it came. */
  readConfig?: ((signal: AbortSignal) => Promise<Buffer>) | undefined;
  /** True but worth knowing about the choice, as sentences without a full stop. */
  warnings?: string[] | undefined;
}
