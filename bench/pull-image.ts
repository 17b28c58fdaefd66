/** The images that are pulled. */

import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeOciLayout } from '../src/images/layout-writer.ts';
import { TarWriter } from '../src/tar/tar-writer.ts';
import { cut, sizeOf } from './windows-layer.ts';

export const LAYERS = 8;
export const LAYER_BYTES = 125_000_000;

const WINDOWS = { os: 'windows', architecture: 'amd64' };

/** Layers of noise, which nobody can compress; never much of it in memory: programs started here count that as theirs. */
export async function writeNoise(layout: string): Promise<void> {
  function* noise(): Generator<Uint8Array> {
    for (let done = 0; done < LAYER_BYTES; done += 1_000_000) yield randomBytes(1_000_000);
  }
  const layers = Array.from({ length: LAYERS }, () => ({ tar: noise(), compression: 'none' as const }));
  await writeOciLayout(layout, { layers, platform: WINDOWS, ref: 'v1' });
}

/** Of a hundred files fifty are below a page, forty around 22 KB, and ten up to 200 KB, as in Windows' own tree; or one of these ten has 4 MB. */
export const FILES = {
  'files as in Windows': sizeOf,
  'some of 4 MB': (index: number) => (index % 100 === 99 ? 4_000_000 : sizeOf(index)),
};

/** Layers of files of such sizes, compressed by gzip. The same layers twice: `v1` is an image for Windows, `linux` one that others agree to unpack here. */
export async function writeFiles(layout: string, sizes: (index: number) => number): Promise<void> {
  const binary = readFileSync(process.execPath);
  const layers = Array.from({ length: LAYERS }, (_, index) => ({
    tar: layerOf(binary, index, sizes),
    compression: 'gzip' as const,
  }));
  await writeOciLayout(layout, { layers, platform: WINDOWS, ref: 'v1' });
  const index = readJson<{ manifests: Entry[] }>(join(layout, 'index.json'));
  const entry = index.manifests[0] as Entry;
  const blob = ({ digest }: Entry) => join(layout, 'blobs', ...digest.split(':'));
  const manifest = readJson<{ config: Entry }>(blob(entry));
  const config = { ...readJson<object>(blob(manifest.config)), os: 'linux' };
  const put = (like: Entry, content: unknown): Entry => {
    const bytes = Buffer.from(JSON.stringify(content));
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    const { platform: _, annotations: _tag, ...rest } = like;
    const written = { ...rest, digest, size: bytes.length };
    writeFileSync(blob(written), bytes);
    return written;
  };
  const linux = put(entry, { ...manifest, config: put(manifest.config, config) });
  const tagged = { ...linux, annotations: { 'org.opencontainers.image.ref.name': 'linux' } };
  const both = { ...index, manifests: [entry, tagged] };
  writeFileSync(join(layout, 'index.json'), JSON.stringify(both));
}

interface Entry {
  digest: string;
  size: number;
  platform?: unknown;
  annotations?: unknown;
}

function readJson<T>(file: string): T {
  return JSON.parse(readFileSync(file, 'utf8')) as T;
}

function* layerOf(binary: Buffer, layer: number, sizes: (index: number) => number): Generator<Uint8Array> {
  const pieces: Uint8Array[] = [];
  const tar = new TarWriter((bytes) => pieces.push(bytes));
  const folder = (name: string) => tar.entry({ name, type: 'directory', mode: 0o755 });
  folder('Files/');
  folder('Files/Windows/');
  let written = 0;
  for (let index = 0; written < LAYER_BYTES; index++) {
    if (index % 200 === 0) folder(`Files/Windows/component-${layer}-${index / 200}/`);
    const name = `Files/Windows/component-${layer}-${Math.floor(index / 200)}/file ${index}.dll`;
    const size = sizes(index);
    tar.entry({ name, type: 'file', mode: 0o644, size });
    tar.data(cut(binary, index + 10_000 * layer, size));
    written += size;
    yield* pieces.splice(0);
  }
  tar.finish();
  yield* pieces;
}
