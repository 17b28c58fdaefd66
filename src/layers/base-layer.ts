/** What a base layer gets beyond its tar. Source: hcsshim internal/wclayer/cim (process.go, common.go). */

import { CimletError } from '../errors.ts';
import type { LayerWriter } from './cim-writer.ts';
import { CONFIG, HIVES, timeless } from './hives.ts';
import type { LayerNode } from './layer-tree.ts';

export const LAYOUT_PATH = 'layout';
const LAYOUT = Buffer.from('vhd-with-hives\n');

/**
 * Adds `Hives/` with a hard link `<NAME>_BASE` to each registry hive, and the file `layout`; `added` says what the
 * layer's tar brought. Without any hive there are no links, and the returned warning says so; with some but not all,
 * CimletError `corrupt`.
 */
export function completeBaseLayer(
  writer: LayerWriter,
  added: (path: string) => LayerNode | undefined,
): string[] {
  const present = HIVES.filter(({ file }) => added(`${CONFIG}/${file}`)?.kind === 'file');
  if (present.length > 0 && present.length < HIVES.length) {
    const missing = HIVES.filter((hive) => !present.includes(hive)).map(({ file }) => file);
    throw new CimletError(
      'corrupt',
      `base layer has some registry hives in ${CONFIG}, but not ${missing.join(', ')}`,
      { hint: 'a Windows base layer has all five hives, or none' },
    );
  }
  if (added('Hives') === undefined) writer.createFile('Hives', timeless('directory')).close();
  for (const { file, name } of present) {
    writer.createHardLink(`Hives/${name}_BASE`, `${CONFIG}/${file}`);
  }
  const layout = writer.createFile(LAYOUT_PATH, timeless('file', LAYOUT.length));
  layout.write(LAYOUT);
  layout.close();
  return present.length > 0 ? [] : [`base layer has no registry hives in ${CONFIG}: no Hives/*_BASE`];
}
