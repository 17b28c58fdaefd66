/** What loading manifests yields: resources with their place in the source, and every problem found. */

import type { ImageSpec, LayerChainSpec, Metadata, MountSpec } from './types.gen.ts';

export interface SourcePosition {
  /** As the user named it: a path, or `-` for standard input. */
  file: string;
  /** 1-based. */
  line: number;
  column: number;
}

export type Kind = 'Image' | 'LayerChain' | 'Mount';

interface ResourceOf<K extends Kind, Spec> {
  kind: K;
  metadata: Metadata;
  spec: Spec;
  /** Where the document begins. */
  position: SourcePosition;
  /** Directory that relative paths in the spec are relative to. */
  baseDirectory: string;
}

export type ImageResource = ResourceOf<'Image', ImageSpec>;
export type LayerChainResource = ResourceOf<'LayerChain', LayerChainSpec>;
export type MountResource = ResourceOf<'Mount', MountSpec>;
export type Resource = ImageResource | LayerChainResource | MountResource;

/** `file:line:column`. */
export function formatPosition({ file, line, column }: SourcePosition): string {
  return `${file}:${line}:${column}`;
}

export interface Problem {
  position: SourcePosition;
  /** Whose mistake it is; undefined when that can't be told. */
  resource?: ResourceKey | undefined;
  /** Path in the document; empty for the whole document. */
  field: string;
  code:
    | 'syntax'
    | 'schema'
    | 'unknown-field'
    | 'unknown-kind'
    | 'duplicate'
    | 'dangling-reference'
    | 'cycle'
    | 'unreadable';
  message: string;
  /** "did you mean ..." */
  suggestion?: string | undefined;
}

/** A resource that is declared, but not validly. */
export interface InvalidResource {
  key: ResourceKey;
  position: SourcePosition;
  /** Its first problem. */
  message: string;
  /** Labels of the hosts that it says it is for; empty for all, and when that can't be told. */
  matchLabels: Readonly<Record<string, string>>;
}

export interface SourceFile {
  /** Absolute path, or `-`. */
  path: string;
  /** sha256:... of its bytes. */
  digest: string;
}

export interface LoadedManifests {
  resources: Resource[];
  problems: Problem[];
  /** Labels of the hosts that resources which aren't valid by their schemas say they are for. */
  invalidHosts: ReadonlyMap<ResourceKey, Readonly<Record<string, string>>>;
  files: SourceFile[];
  /** `folder@sha256:...` over every file's path and bytes. */
  revision: string;
}

/** `Kind/name`, how resources are named everywhere. */
export type ResourceKey = `${Kind}/${string}`;

export function resourceKey(resource: { kind: Kind; metadata: { name: string } }): ResourceKey {
  return `${resource.kind}/${resource.metadata.name}`;
}
