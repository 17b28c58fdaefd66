/** The registry hives of Windows layers. Source: hcsshim internal/wclayer/cim (common.go, process.go, registry.go). */

import { type CimStream, FileAttribute, type FileMetadata } from '../cim/types.ts';
import { entryError } from '../tar/tar-format.ts';
import type { LayerWriter } from './cim-writer.ts';
import type { DeferredFile } from './deferred-entries.ts';
import { addChild, childOf, foldName, type LayerNode } from './layer-tree.ts';
import type { LowerView } from './lower-view.ts';

export const CONFIG = 'Files/Windows/System32/config';
const UVM = 'UtilityVM/Files';
const UVM_BOOT = `${UVM}/EFI/Microsoft/Boot`;

/** A registry hive: its file in the base layer, and how `Hives/` calls it. */
export const HIVES = [
  { file: 'SYSTEM', name: 'SYSTEM' },
  { file: 'SOFTWARE', name: 'SOFTWARE' },
  { file: 'SAM', name: 'SAM' },
  { file: 'SECURITY', name: 'SECURITY' },
  { file: 'DEFAULT', name: 'DEFAULTUSER' },
] as const;

/** Where a layer's registry changes are, by hive. */
export const DELTA_PATHS = HIVES.map(({ name }) => `Hives/${name}_DELTA`);

/** Files that are added to a CIM after all others, by folded path: what may have to be worked on first. */
const DEFERRED = new Set(
  [
    ...HIVES.map(({ file }) => `${CONFIG}/${file}`),
    ...DELTA_PATHS,
    `${UVM}/Windows/System32/config/SYSTEM`,
    `${UVM}/Windows/System32/config/SOFTWARE`,
    `${UVM_BOOT}/BCD`,
    `${UVM_BOOT}/bootmgfw.efi`,
  ].map(foldName),
);

const NORMAL = 0x80;

/** True for the registry hives, their deltas and a utility VM's boot files. */
export function isDeferredFile(path: string): boolean {
  return DEFERRED.has(foldName(path));
}

/** As hcsshim writes what it adds: no times, no descriptor. */
export function timeless(kind: 'directory' | 'file', size = 0): FileMetadata {
  const attributes = kind === 'directory' ? FileAttribute.directory : NORMAL;
  return { attributes, size, creationTime: 0n, lastWriteTime: 0n, changeTime: 0n, lastAccessTime: 0n };
}

/** A hive's file, wherever it is. */
export interface HiveFile {
  /** How errors and warnings call it. */
  name: string;
  size: number;
  chunks: Iterable<Uint8Array>;
}

/** Merges registry hives: cimlet's own code (own-hives.ts), or Windows. */
export interface HiveMerger {
  /** Writes what `delta` over `base` gives to the stream that `create` returns for its size. Returns warnings. */
  merge(base: HiveFile, delta: HiveFile, create: (size: number) => CimStream): string[];
}

/** A registry delta of a layer, and where the hive goes that it makes. */
export interface HiveDelta {
  /** `Hives/<name>_BASE`. */
  base: string;
  delta: DeferredFile;
}

/**
 * The deltas that a layer brings. Records `Hives/<NAME>_BASE` as added by the layer, since that is going to be written.
 */
export function findDeltas(
  root: LayerNode,
  deferred: (path: string) => DeferredFile | undefined,
): HiveDelta[] {
  const directory = childOf(root, 'Hives');
  const found: HiveDelta[] = [];
  for (const { name } of HIVES) {
    const delta = deferred(`Hives/${name}_DELTA`);
    if (delta === undefined || directory === undefined) continue;
    addChild(directory, `${name}_BASE`, 'file', false);
    found.push({ base: `Hives/${name}_BASE`, delta });
  }
  return found;
}

/**
 * Merges a delta over the same hive of the layers below and writes the result as this layer's. Errors name the delta's
 * entry. Returns warnings.
 */
export function writeMergedHive(
  { base, delta }: HiveDelta,
  deltaBytes: Iterable<Uint8Array>,
  lower: LowerView,
  writer: LayerWriter,
  merger: HiveMerger,
): string[] {
  const info = lower.stat(base);
  if (info === undefined || info.isDirectory) {
    throw entryError(delta.place, `the layers below have no ${base} to merge this registry delta over`);
  }
  return merger.merge(
    { name: `${base} below`, size: info.size, chunks: lower.read(base) },
    { name: delta.path, size: delta.file.size, chunks: deltaBytes },
    (size) => writer.createFile(base, timeless('file', size)),
  );
}
