/** Writes what the in-memory host knows of a layer as a real layer tar: contents and names, no metadata. */

import { rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { classify } from '../../errors.ts';
import { LayerTarWriter } from '../../layers/layer-tar.ts';
import type { LayerTree } from './stored-layer.ts';

/** Replaces `file`. */
export async function writeLayerTar(tree: LayerTree, parent: LayerTree, file: string): Promise<void> {
  await writeWhole(file, layerTar(tree, parent));
}

/** Replaces `file`. */
export async function writeWhole(file: string, content: Uint8Array): Promise<void> {
  const temporary = join(dirname(file), `tmp-${basename(file)}`);
  try {
    await writeFile(temporary, content);
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw classify(error, `write ${file}`);
  }
}

/** The tar of what differs between two trees. */
export function layerTar(tree: LayerTree, parent: LayerTree): Buffer {
  const chunks: Uint8Array[] = [];
  const tar = new LayerTarWriter((bytes) => chunks.push(Uint8Array.from(bytes)));
  const isGone = (path: string) => parent.has(path) && !tree.has(path);
  for (const path of [...parent.keys()].sort())
    if (isGone(path) && !isGone(path.slice(0, path.lastIndexOf('/')))) tar.whiteout(path);
  for (const [path, content] of [...tree].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const below = parent.get(path);
    if (content === undefined) {
      if (!parent.has(path) || below !== undefined) tar.directory(path);
    } else if (below === undefined || !Buffer.from(content).equals(below)) tar.file(path, content);
  }
  tar.finish();
  return Buffer.concat(chunks);
}
