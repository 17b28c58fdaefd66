/** Short ways to make tars and read them back. */

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import type { OpenCimOptions } from '../../src/cim/open-image.ts';
import { publishCim } from '../../src/cim/publish.ts';
import { openCim } from '../../src/cim/reader.ts';
import { createCimWriter } from '../../src/cim/writer.ts';
import type { ImportResult } from '../../src/layers/import-layer.ts';
import { importLayer } from '../../src/layers/import-layer.ts';
import { LayerTarWriter } from '../../src/layers/layer-tar.ts';
import { decodeReparse } from '../../src/layers/reparse.ts';
import type { TarHeader } from '../../src/tar/tar-format.ts';
import { TarReader } from '../../src/tar/tar-reader.ts';
import { type TarEntry, TarWriter } from '../../src/tar/tar-writer.ts';
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

/** One path of an imported stack, comparable whatever holds it. */
export interface DumpedFile {
  kind: 'directory' | 'file' | 'link';
  /** Content, or a link's target. */
  content: string;
  streams: string[];
  /** The first path, in order, of the same file. */
  same: string;
}

/** What a memory writer holds. */
export function dumpMemory(writer: MemoryCimWriter): Map<string, DumpedFile> {
  const first = new Map<number, string>();
  return new Map(
    writer.list().map(([path, file]) => {
      if (!first.has(file.id)) first.set(file.id, path);
      const reparse = file.metadata.reparseData;
      const kind = reparse !== undefined ? 'link' : file.children !== undefined ? 'directory' : 'file';
      const content = reparse === undefined ? file.data.toString() : (decodeReparse(reparse)?.target ?? '?');
      const streams = [...file.streams].map(([name, data]) => `${name}=${data}`).sort();
      return [path, { kind, content, streams, same: first.get(file.id) ?? path }];
    }),
  );
}

/** Imports layers base first into real forked CIMs in `directory` and reads the last one back. */
export async function importIntoCims(
  layers: readonly Uint8Array[],
  directory: string,
): Promise<Map<string, DumpedFile>> {
  for (const [index, layer] of layers.entries()) {
    const name = `layer${index}`;
    const regionGuid = `00000000-0000-4000-8000-00000000000${index}`;
    const parent = index === 0 ? {} : { parent: `layer${index - 1}` };
    const writer = createCimWriter({ directory, name, regionGuid, ...parent });
    try {
      await importLayer(inChunks(layer), writer, { isBase: index === 0 });
      writer.finish();
    } finally {
      writer.close();
    }
    publishCim(directory, name, regionGuid);
  }
  return dumpCim(join(directory, `layer${layers.length - 1}.cim`));
}

export function dumpCim(file: string, options: OpenCimOptions = {}): Map<string, DumpedFile> {
  const cim = openCim(file, options);
  try {
    const found: [string, number][] = [];
    const pending: [string, number][] = [['', cim.root]];
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      for (const { name, id } of cim.isDirectory(next[1]) ? cim.entries(next[1]) : []) {
        const path = next[0] === '' ? name : `${next[0]}/${name}`;
        found.push([path, id]);
        pending.push([path, id]);
      }
    }
    found.sort(([a], [b]) => (a < b ? -1 : 1));
    const first = new Map<number, string>();
    const read = (id: number, size: number, name?: string) => {
      const buffer = Buffer.alloc(size);
      cim.readStream(id, name, buffer, 0);
      return buffer.toString();
    };
    return new Map(
      found.map(([path, id]) => {
        if (!first.has(id)) first.set(id, path);
        const info = cim.stat(id);
        const kind = info.reparseTag !== 0 ? 'link' : info.isDirectory ? 'directory' : 'file';
        const content =
          info.reparseTag !== 0
            ? (decodeReparse(info.reparseData!)?.target ?? '?')
            : info.isDirectory
              ? ''
              : read(id, info.size);
        const streams = cim.streams(id).map(({ name, size }) => `${name}=${read(id, size, name)}`);
        return [path, { kind, content, streams: streams.sort(), same: first.get(id) ?? path }];
      }),
    );
  } finally {
    cim.close();
  }
}
