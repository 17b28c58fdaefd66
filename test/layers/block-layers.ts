/** Real block CIMs from layer tars. */

import { join } from 'node:path';
import { createBlockCimWriter } from '../../src/cim/block-writer.ts';
import { publishContainer } from '../../src/cim/publish.ts';
import { type CimReader, openCim } from '../../src/cim/reader.ts';
import { type ImportResult, importBlockLayer } from '../../src/layers/import-layer.ts';
import { type LowerView, lowerViewOf } from '../../src/layers/lower-view.ts';
import { decodeReparse } from '../../src/layers/reparse.ts';
import { type DumpedFile, inChunks } from '../tar/tar-helpers.ts';

/** Imports layers base first into `<prefix><n>.bcim` in a directory; the paths, base first. */
export async function importIntoBlockCims(
  layers: readonly Uint8Array[],
  directory: string,
  prefix = 'layer',
): Promise<{ files: string[]; results: ImportResult[] }> {
  const files: string[] = [];
  const results: ImportResult[] = [];
  for (const [index, layer] of layers.entries()) {
    const file = join(directory, `${prefix}${index}.bcim`);
    const result = await withCims(files, (readers) =>
      importOne(layer, file, index, readers.length === 0 ? undefined : lowerViewOf(...readers)),
    );
    results.push(result);
    files.push(file);
  }
  return { files, results };
}

async function importOne(
  layer: Uint8Array,
  file: string,
  index: number,
  lower: LowerView | undefined,
): Promise<ImportResult> {
  const regionGuid = `00000000-0000-4000-8000-${String(index).padStart(12, '0')}`;
  const writer = createBlockCimWriter({ file, name: 'layer', regionGuid });
  try {
    const result = await importBlockLayer(inChunks(layer), writer, { lower });
    writer.finish();
    publishContainer(file);
    return result;
  } finally {
    writer.close();
  }
}

/** Opens containers, given base first, topmost first. */
export async function withCims<T>(
  files: readonly string[],
  use: (readers: CimReader[]) => T | Promise<T>,
): Promise<T> {
  const readers: CimReader[] = [];
  try {
    for (const file of files) readers.unshift(openCim(file));
    return await use(readers);
  } finally {
    for (const reader of readers) reader.close();
  }
}

/** What a view shows; the identity of hard links by file ID is not part of it. */
export function dumpView(view: LowerView): Map<string, Omit<DumpedFile, 'same'>> {
  const found: [string, Omit<DumpedFile, 'same'>][] = [];
  const text = (path: string, stream?: string) => Buffer.concat([...view.read(path, stream)]).toString();
  const pending = [''];
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    for (const { name } of view.entries(path)) {
      const child = path === '' ? name : `${path}/${name}`;
      const info = view.stat(child);
      // A merge link whose target isn't there any more.
      if (info === undefined) continue;
      const target = info.reparseData && decodeReparse(info.reparseData)?.target;
      const kind = target !== undefined ? 'link' : info.isDirectory ? 'directory' : 'file';
      const content = kind === 'file' ? text(child) : (target ?? '');
      const streams = view.streams(child).map((stream) => `${stream.name}=${text(child, stream.name)}`);
      found.push([child, { kind, content, streams: streams.sort() }]);
      if (info.isDirectory) pending.push(child);
    }
  }
  return new Map(found.sort(([a], [b]) => (a < b ? -1 : 1)));
}
