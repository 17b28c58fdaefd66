/** Short ways to make tars and read them back. */

import { spawnSync } from 'node:child_process';
import type { ImportResult } from '../../src/layers/import-layer.ts';
import { importLayer } from '../../src/layers/import-layer.ts';
import { LayerTarWriter } from '../../src/layers/layer-tar.ts';
import type { TarHeader } from '../../src/layers/tar-format.ts';
import { TarReader } from '../../src/layers/tar-reader.ts';
import { type TarEntry, TarWriter } from '../../src/layers/tar-writer.ts';
import { MemoryCimWriter } from '../support/memory-cim-writer.ts';

export interface ReadEntry extends TarHeader {
  content: Buffer;
}

/** Reads a whole tar, given in pieces of `chunkSize`. */
export function readTar(tar: Uint8Array, chunkSize = tar.length): ReadEntry[] {
  const entries: ReadEntry[] = [];
  let chunks: Buffer[] = [];
  const reader = new TarReader({
    entry: (header) => {
      entries.push({ ...header, content: Buffer.alloc(0) });
      chunks = [];
    },
    data: (chunk) => chunks.push(Buffer.from(chunk)),
    end: () => {
      entries.at(-1)!.content = Buffer.concat(chunks);
    },
  });
  for (let at = 0; at < tar.length; at += chunkSize) reader.write(tar.subarray(at, at + chunkSize));
  reader.finish();
  return entries;
}

export function makeTar(fill: (tar: TarWriter) => void): Buffer {
  const chunks: Uint8Array[] = [];
  const tar = new TarWriter((bytes) => chunks.push(bytes));
  fill(tar);
  tar.finish();
  return Buffer.concat(chunks);
}

export function makeLayer(fill: (layer: LayerTarWriter) => void): Buffer {
  const chunks: Uint8Array[] = [];
  const layer = new LayerTarWriter((bytes) => chunks.push(bytes));
  fill(layer);
  layer.finish();
  return Buffer.concat(chunks);
}

/** A tar of single entries; content is only for files. */
export function tarOf(...entries: (TarEntry & { content?: string })[]): Buffer {
  return makeTar((tar) => {
    for (const { content, ...entry } of entries) {
      if (entry.type === 'file') tar.file(entry, Buffer.from(content ?? ''));
      else tar.entry(entry);
    }
  });
}

export async function* inChunks(bytes: Uint8Array, size = 64 * 1024): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

/** Imports layers base first, each over the one before. */
export async function importStack(
  layers: readonly Uint8Array[],
  chunkSize?: number,
): Promise<{ writer: MemoryCimWriter; results: ImportResult[] }> {
  const writer = new MemoryCimWriter();
  const results: ImportResult[] = [];
  for (const [index, layer] of layers.entries()) {
    results.push(await importLayer(inChunks(layer, chunkSize), writer, { isBase: index === 0 }));
  }
  return { writer, results };
}

/** Runs a program and returns its standard output; fails on a non-zero exit. */
export function run(command: string, args: string[], options: { cwd?: string; input?: Buffer } = {}): Buffer {
  const result = spawnSync(command, args, { ...options, maxBuffer: 1 << 30 });
  if (result.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${result.stderr}`);
  return result.stdout;
}
