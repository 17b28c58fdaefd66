/** Layer blobs for tests of hosts: plain tars of a Windows image's files. */

import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DiffId, Digest, LayerBlob } from '../../src/hosts/host.ts';
import { type TarEntry, TarWriter } from '../../src/tar/tar-writer.ts';

/** One time for everything: 2024-05-06 07:08:09.1234567 UTC, in nanoseconds. */
export const LAYER_TIME = 1_714_979_289_123_456_700n;

export type LayerItem = Omit<TarEntry, 'mtime' | 'size'> & { mtime?: bigint; content?: Uint8Array };

/** Writes a tar of the entries, as they are, into `directory` and describes it. */
export async function writeLayerBlob(
  directory: string,
  items: readonly LayerItem[],
): Promise<{ blob: LayerBlob; diffId: DiffId }> {
  const chunks: Uint8Array[] = [];
  const writer = new TarWriter((bytes) => chunks.push(Uint8Array.from(bytes)));
  for (const { content, ...item } of items) {
    const entry = { ...item, mtime: item.mtime ?? LAYER_TIME };
    if (content === undefined) writer.entry(entry);
    else writer.file(entry, content);
  }
  writer.finish();
  const tar = Buffer.concat(chunks);
  const digest = `sha256:${createHash('sha256').update(tar).digest('hex')}`;
  const file = join(directory, `${digest.slice(7, 19)}.tar`);
  await writeFile(file, tar);
  const blob = {
    file,
    offset: 0,
    size: tar.length,
    digest: digest as Digest,
    mediaType: 'application/vnd.oci.image.layer.v1.tar',
  };
  return { blob, diffId: digest as DiffId };
}

/** Entries for files below the image's root, with the directories above them; null is a whiteout. */
export function layerItems(files: Record<string, string | null>): LayerItem[] {
  const items: LayerItem[] = [{ name: 'Files/', type: 'directory' }];
  const made = new Set<string>();
  for (const [path, text] of Object.entries(files)) {
    const parts = path.split('/');
    for (let depth = 1; depth < parts.length; depth++) {
      const directory = `Files/${parts.slice(0, depth).join('/')}/`;
      if (made.has(directory)) continue;
      made.add(directory);
      items.push({ name: directory, type: 'directory' });
    }
    const directory = ['Files', ...parts.slice(0, -1)].join('/');
    const name = parts.at(-1) ?? '';
    items.push(
      text === null
        ? { name: `${directory}/.wh.${name}`, type: 'file', content: new Uint8Array(0) }
        : { name: `${directory}/${name}`, type: 'file', content: Buffer.from(text) },
    );
  }
  return items;
}
