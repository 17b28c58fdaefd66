/** The registry hives of Windows layers. Source: hcsshim internal/wclayer/cim (common.go, process.go, registry.go). */

import { FileAttribute, type FileMetadata } from '../cim/types.ts';
import { CimletError } from '../errors.ts';
import { mergeHives } from '../hive/merge.ts';
import type { Hive } from '../hive/model.ts';
import { readHive } from '../hive/reader.ts';
import { writeHive } from '../hive/writer.ts';
import type { LayerWriter } from './cim-writer.ts';
import type { DeferredFile } from './deferred-entries.ts';
import { addChild, childOf, foldName, type LayerNode } from './layer-tree.ts';
import type { LowerView } from './lower-view.ts';
import { entryError } from './tar-format.ts';

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

/** Hives are merged in memory, which takes seven times their size: 2 GiB at most. Windows' own are below 200 MiB. */
const MAX_HIVE = 256 << 20;

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
): string[] {
  const info = lower.stat(base);
  if (info === undefined || info.isDirectory) {
    throw entryError(delta.place, `the layers below have no ${base} to merge this registry delta over`);
  }
  const baseHive = parse(base, lower.read(base), info.size);
  const deltaHive = parse(delta.path, deltaBytes, delta.file.size);
  const merged = writeHive(mergeHives(baseHive, deltaHive));
  const stream = writer.createFile(base, timeless('file', merged.length));
  stream.write(merged);
  stream.close();
  return [
    ...(baseHive.dirty ? [dirtyWarning(`${base} below`)] : []),
    ...(deltaHive.dirty ? [dirtyWarning(delta.path)] : []),
  ];
}

function parse(name: string, chunks: Iterable<Uint8Array>, size: number): Hive {
  if (size > MAX_HIVE) {
    throw new CimletError(
      'corrupt',
      `registry hive ${name} has ${size} bytes; at most ${MAX_HIVE} can be merged`,
    );
  }
  return readHive(Buffer.concat([...chunks], size), name);
}

function dirtyWarning(what: string): string {
  return `registry hive ${what} was saved in the middle of a write: changes that only its log has are lost`;
}
