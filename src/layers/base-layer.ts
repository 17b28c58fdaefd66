/** What a base layer gets beyond its tar. Source: hcsshim internal/wclayer/cim (process.go, common.go). */

import { FileAttribute, type FileMetadata } from '../cim/types.ts';
import { CimletError } from '../errors.ts';
import type { CimWriter } from './cim-writer.ts';

const CONFIG = 'Files/Windows/System32/config';

/** A registry hive: its file in the base layer, and how `Hives/` calls it. */
const HIVES = [
  { file: 'SYSTEM', name: 'SYSTEM' },
  { file: 'SOFTWARE', name: 'SOFTWARE' },
  { file: 'SAM', name: 'SAM' },
  { file: 'SECURITY', name: 'SECURITY' },
  { file: 'DEFAULT', name: 'DEFAULTUSER' },
] as const;

/** Where a layer's registry changes are, by hive. */
export const DELTA_PATHS = HIVES.map(({ name }) => `Hives/${name}_DELTA`);

const LAYOUT = Buffer.from('vhd-with-hives\n');
const NORMAL = 0x80;

/**
 * Adds `Hives/` with a hard link `<NAME>_BASE` to each registry hive, and the file `layout`. Without any hive there are no links,
 * and the returned warning says so; with some but not all, CimletError `corrupt`.
 */
export function completeBaseLayer(writer: CimWriter): string[] {
  const present = HIVES.filter(({ file }) => writer.stat(`${CONFIG}/${file}`)?.isDirectory === false);
  if (present.length > 0 && present.length < HIVES.length) {
    const missing = HIVES.filter((hive) => !present.includes(hive)).map(({ file }) => file);
    throw new CimletError(
      'corrupt',
      `base layer has some registry hives in ${CONFIG}, but not ${missing.join(', ')}`,
      { hint: 'a Windows base layer has all five hives, or none' },
    );
  }
  if (writer.stat('Hives') === undefined) {
    writer.createFile('Hives', timeless(FileAttribute.directory, 0)).close();
  }
  for (const { file, name } of present) {
    writer.deletePath(`Hives/${name}_BASE`);
    writer.createHardLink(`Hives/${name}_BASE`, `${CONFIG}/${file}`);
  }
  const layout = writer.createFile('layout', timeless(NORMAL, LAYOUT.length));
  layout.write(LAYOUT);
  layout.close();
  return present.length > 0 ? [] : [`base layer has no registry hives in ${CONFIG}: no Hives/*_BASE`];
}

/** As hcsshim writes them: no times, no descriptor. */
function timeless(attributes: number, size: number): FileMetadata {
  return { attributes, size, creationTime: 0n, lastWriteTime: 0n, changeTime: 0n, lastAccessTime: 0n };
}
