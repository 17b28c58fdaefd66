/** Inputs for the benchmarks, made of the real files at hand: Node's own binary and the packages installed. */

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  createReadStream,
  createWriteStream,
  mkdirSync,
  openSync,
  readSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { writeOciLayout } from '../src/images/layout-writer.ts';

export interface LayerFixture {
  file: string;
  digest: string;
  diffId: string;
  bytes: number;
  files: number;
}

const SIZES = {
  small: { files: 5_000, binaries: 1 },
  large: { files: 20_000, binaries: 4 },
};

/** A Windows layer tar.gz below `directory`: whole binaries, and thousands of files cut out of them. */
export async function makeLayer(directory: string, size: keyof typeof SIZES): Promise<LayerFixture> {
  const { files, binaries } = SIZES[size];
  const binary = process.execPath;
  const tree = join(directory, 'tree/Files');
  mkdirSync(tree, { recursive: true });
  const descriptor = openSync(binary, 'r');
  try {
    const total = statSync(binary).size;
    for (let index = 0; index < binaries; index++) {
      const tail = Math.floor((total / 8) * index);
      spawnSync('sh', [
        '-c',
        'tail -c +"$1" "$2" > "$3"',
        'sh',
        String(tail + 1),
        binary,
        join(tree, `binary-${index}.exe`),
      ]);
    }
    for (let index = 0; index < files; index++) {
      const folder = join(tree, `folder-${Math.floor(index / 100)}`);
      if (index % 100 === 0) mkdirSync(folder);
      const length = 200 + ((index * 7919) % 22_000);
      const slice = Buffer.alloc(length);
      readSync(descriptor, slice, 0, length, (index * 104_729) % (total - length));
      slice.writeUInt32LE(index, 0);
      writeFileSync(join(folder, `file-${index}.dll`), slice);
    }
  } finally {
    closeSync(descriptor);
  }
  const tar = join(directory, 'layer.tar');
  const packed = spawnSync('tar', [
    '--format=posix',
    '--sort=name',
    '-C',
    join(directory, 'tree'),
    '-cf',
    tar,
    'Files',
  ]);
  if (packed.status !== 0) throw new Error(`tar: ${packed.stderr}`);
  const file = `${tar}.gz`;
  await pipeline(createReadStream(tar), createGzip({ level: 6 }), createWriteStream(file));
  return {
    file,
    digest: await sha256(file),
    diffId: await sha256(tar),
    bytes: statSync(tar).size,
    files: files + binaries,
  };
}

async function sha256(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return `sha256:${hash.digest('hex')}`;
}

/** A one-layer Windows image as an OCI layout, for plans that need an image to resolve. */
export async function writeSmallImage(directory: string): Promise<void> {
  const tree = join(directory, '../small-tree/Files');
  mkdirSync(tree, { recursive: true });
  writeFileSync(join(tree, 'hello.txt'), 'hello\n');
  const tar = join(directory, '../small.tar');
  const packed = spawnSync('tar', ['--format=posix', '-C', join(tree, '..'), '-cf', tar, 'Files']);
  if (packed.status !== 0) throw new Error(`tar: ${packed.stderr}`);
  await writeOciLayout(directory, {
    layers: [{ tar, compression: 'gzip' }],
    platform: { os: 'windows', architecture: 'amd64' },
  });
}

/** An extracted view, which needs no privilege and is gone with the folder. */
export function appManifest(directory: string, place: string, edition: number, image = '../image'): string {
  const header = 'apiVersion: cimlet.dev/v1alpha1\n';
  return `${header}kind: Image
metadata: {name: app, labels: {edition: "${edition}"}}
spec: {source: {ociLayout: "${image}"}, platform: {os: windows, architecture: amd64}}
---
${header}kind: Mount
metadata: {name: app}
spec: {image: app, path: "${join(directory, 'views', place)}", view: Extracted}
`;
}
