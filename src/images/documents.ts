/**
 * The JSON documents of images, checked member by member: what is read here was written by others.
 * Sources: OCI image-spec v1.1 (image-index.md, manifest.md, config.md, image-layout.md), docker image spec v1.2.
 */

import { CimletError } from '../errors.ts';
import type { DiffId, Digest } from '../hosts/host.ts';
import { isDiffId, isDigest } from './digest.ts';
import { locateJsonError } from './json-error.ts';
import type { Descriptor, Platform } from './types.ts';

/** Larger documents are refused unread, as registries do. */
export const DOCUMENT_LIMIT = 4 << 20;

export interface ImageIndex {
  manifests: Descriptor[];
}

export interface ImageManifest {
  config: Descriptor;
  layers: Descriptor[];
}

export interface ImageConfig {
  platform: Platform;
  diffIds: DiffId[];
}

/** One image of a docker archive's manifest.json; the names are those of archive members. */
export interface DockerArchiveEntry {
  config: string;
  repoTags: string[];
  layers: string[];
}

/** Checks the file `oci-layout`. `name` is how errors call the document, in all of these. */
export function parseLayoutVersion(bytes: Uint8Array, name: string): void {
  const version = document(bytes, name).member('imageLayoutVersion').string();
  if (version !== '1.0.0') {
    throw new CimletError('corrupt', `${name}: layout version ${version} is not known, only 1.0.0 is`);
  }
}

export function parseIndex(bytes: Uint8Array, name: string): ImageIndex {
  const root = document(bytes, name);
  refuseMembers(root, ['layers', 'config'], 'an index');
  return { manifests: root.member('manifests').items().map(readDescriptor) };
}

export function parseManifest(bytes: Uint8Array, name: string): ImageManifest {
  const root = document(bytes, name);
  refuseMembers(root, ['manifests'], 'a manifest');
  return {
    config: readDescriptor(root.member('config')),
    layers: root.member('layers').items().map(readDescriptor),
  };
}

export function parseConfig(bytes: Uint8Array, name: string): ImageConfig {
  const root = document(bytes, name);
  const rootfs = root.member('rootfs');
  const diffIds = rootfs.member('diff_ids');
  return {
    platform: readPlatform(root),
    // Go writes an empty list as null.
    diffIds: (diffIds.isAbsent ? [] : diffIds.items()).map((item) => item.checked(isDiffId, 'a digest')),
  };
}

/** A manifest that is no image's; its kind is in one of two places. */
export function parseArtifact(
  bytes: Uint8Array,
  name: string,
): { artifactType: string; layers: Descriptor[] } {
  const root = document(bytes, name);
  const layers = root.member('layers');
  return {
    artifactType:
      root.member('artifactType').optionalString() ?? readDescriptor(root.member('config')).mediaType,
    layers: layers.isAbsent ? [] : layers.items().map(readDescriptor),
  };
}

/** Which image cosign's payload is about. Source: containers/image docs/containers-signature.5.md. */
export function parseSimpleSigning(bytes: Uint8Array, name: string): Digest {
  const image = document(bytes, name).member('critical').member('image');
  return image.member('docker-manifest-digest').checked(isDigest, 'a digest');
}

/** Which artifact a Notary Project signature is about. */
export function parseNotationPayload(bytes: Uint8Array, name: string): Digest {
  return document(bytes, name).member('targetArtifact').member('digest').checked(isDigest, 'a digest');
}

/** An in-toto statement: what it says, and of which sha256 digests. */
export function parseStatement(
  bytes: Uint8Array,
  name: string,
): { predicateType: string; subjects: Digest[] } {
  const root = document(bytes, name);
  const subjects = root
    .member('subject')
    .items()
    .map((subject) => `sha256:${subject.member('digest').member('sha256').string()}`);
  return { predicateType: root.member('predicateType').string(), subjects: subjects.filter(isDigest) };
}

/** Servers write null for a repository without tags. */
export function parseTagList(bytes: Uint8Array, name: string): string[] {
  const tags = document(bytes, name).member('tags');
  return tags.isAbsent ? [] : tags.items().map((tag) => tag.string());
}

export function parseDockerManifest(bytes: Uint8Array, name: string): DockerArchiveEntry[] {
  return document(bytes, name)
    .items()
    .map((entry) => {
      const repoTags = entry.member('RepoTags');
      return {
        config: entry.member('Config').string(),
        repoTags: repoTags.isAbsent ? [] : repoTags.items().map((tag) => tag.string()),
        layers: entry
          .member('Layers')
          .items()
          .map((layer) => layer.string()),
      };
    });
}

function readDescriptor(node: JsonNode): Descriptor {
  const platform = node.member('platform');
  const mediaType = node.member('mediaType');
  const urls = node.member('urls');
  const annotations = node.member('annotations');
  return {
    mediaType: mediaType.isAbsent ? '' : mediaType.string(),
    digest: node.member('digest').checked(isDigest, 'a sha256 or sha512 digest'),
    size: node.member('size').checked(isSize, 'a size in bytes'),
    urls: urls.isAbsent ? [] : urls.items().map((url) => url.string()),
    annotations: annotations.isAbsent ? {} : annotations.strings(),
    artifactType: node.member('artifactType').optionalString(),
    platform: platform.isAbsent ? undefined : readPlatform(platform),
  };
}

function readPlatform(node: JsonNode): Platform {
  const features = node.member('os.features');
  return {
    os: node.member('os').string(),
    architecture: node.member('architecture').string(),
    variant: node.member('variant').optionalString(),
    osVersion: node.member('os.version').optionalString(),
    osFeatures: features.isAbsent ? undefined : features.items().map((feature) => feature.string()),
  };
}

function isSize(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

/** A document that could be read as either kind means one thing here and another elsewhere (CVE-2021-41190). */
function refuseMembers(root: JsonNode, members: string[], kind: string): void {
  const found = members.find((member) => !root.member(member).isAbsent);
  if (found === undefined) return;
  throw new CimletError('corrupt', `${root.name}: ${kind} must not have the member \`${found}\``);
}

function document(bytes: Uint8Array, name: string): JsonNode {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new CimletError('corrupt', `${name}: not UTF-8 text`, { cause });
  }
  try {
    return new JsonNode(name, '', JSON.parse(text));
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    const { line, column } = locateJsonError(text);
    throw new CimletError('corrupt', `${name}:${line}:${column}: not valid JSON`, { cause });
  }
}

/** A JSON value that knows its document and its path in it, so that every complaint names both. */
class JsonNode {
  readonly name: string;
  readonly #path: string;
  readonly #value: unknown;

  constructor(name: string, path: string, value: unknown) {
    this.name = name;
    this.#path = path;
    this.#value = value;
  }

  get isAbsent(): boolean {
    return this.#value === undefined || this.#value === null;
  }

  member(key: string): JsonNode {
    const path = key.includes('.') ? `${this.#path}["${key}"]` : `${this.#path}.${key}`;
    return new JsonNode(
      this.name,
      path,
      Object.hasOwn(this.#object(), key) ? this.#object()[key] : undefined,
    );
  }

  items(): JsonNode[] {
    const items = this.checked((value) => Array.isArray(value), 'a list') as unknown[];
    return items.map((item, index) => new JsonNode(this.name, `${this.#path}[${index}]`, item));
  }

  string(): string {
    return this.checked((value) => typeof value === 'string', 'a text');
  }

  /** Absent and empty mean the same. */
  optionalString(): string | undefined {
    return this.isAbsent ? undefined : this.string() || undefined;
  }

  strings(): Record<string, string> {
    const keys = Object.keys(this.#object());
    return Object.fromEntries(keys.map((key) => [key, this.member(key).string()]));
  }

  checked<T>(is: (value: unknown) => value is T, expected: string): T {
    if (is(this.#value)) return this.#value;
    const path = this.#path.replace(/^\./, '') || 'the document';
    const found = this.isAbsent ? 'missing' : `not ${expected}`;
    throw new CimletError('corrupt', `${this.name}: ${path} is ${found}`);
  }

  #object(): Record<string, unknown> {
    return this.checked(isObject, 'an object');
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
