/** What is declared in a chaos run: some apps, each an Image, a LayerChain and a Mount, in one of several shapes. */

import { createHash } from 'node:crypto';
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeOciLayout } from '../../src/images/layout-writer.ts';
import { TarWriter } from '../../src/tar/tar-writer.ts';
import { LAYER_TIME, layerItems } from '../support/host-layers.ts';
import type { Random } from './random.ts';

export const APPS = ['a', 'b', 'c', 'd', 'e', 'f'] as const;
export type AppName = (typeof APPS)[number];

export interface Shape {
  format: 'ForkedCIM' | 'BlockCIM';
  isVerified: boolean;
  /** Images of the same app; the second has a layer more. */
  version: 1 | 2;
  /** Last part of the mount point. */
  place: string;
}

const BASE = { 'base.txt': 'shared by all', 'dir/kept.txt': 'kept', big: 'B'.repeat(20_000) };

/** What a mount of an app shows: path -> content. */
export function contentOf(name: AppName, { version }: Shape): Map<string, string> {
  const files = new Map<string, string>(Object.entries(BASE));
  files.set(`${name}.txt`, `app ${name}`);
  if (version === 2) {
    files.delete('dir/kept.txt');
    files.set('dir/new.txt', `second ${name}`);
  }
  return files;
}

/** Layouts of every app and version in `directory`. */
export async function writeImages(directory: string): Promise<void> {
  for (const name of APPS) {
    const base = tarOf(layerItems(BASE));
    const own = tarOf(layerItems({ [`${name}.txt`]: `app ${name}` }));
    const more = tarOf(layerItems({ 'dir/kept.txt': null, 'dir/new.txt': `second ${name}` }));
    for (const [version, tars] of [
      [1, [base, own]],
      [2, [base, own, more]],
    ] as const) {
      await writeOciLayout(join(directory, `${name}${version}`), {
        platform: { os: 'windows', architecture: 'amd64', osVersion: '10.0.26100.1742' },
        layers: tars.map((tar) => ({ tar: [tar], compression: 'gzip' as const })),
      });
    }
  }
}

export function randomShape(name: AppName, random: Random): Shape {
  const format = random.pick(['ForkedCIM', 'BlockCIM'] as const) ?? 'ForkedCIM';
  return {
    format,
    isVerified: format === 'BlockCIM' && random.below(2) === 0,
    version: random.below(2) === 0 ? 1 : 2,
    place: random.below(3) === 0 ? `${name}-moved` : name,
  };
}

/** Makes the folder declare exactly these, each file replaced as editors do. */
export function declare(folder: string, views: string, apps: ReadonlyMap<AppName, Shape>): void {
  mkdirSync(folder, { recursive: true });
  for (const name of APPS) {
    const file = join(folder, `${name}.yaml`);
    const shape = apps.get(name);
    if (shape === undefined) {
      rmSync(file, { force: true });
      continue;
    }
    const { format, isVerified, version, place } = shape;
    const chain = `format: ${format}, ${format === 'BlockCIM' ? 'merge: true, ' : ''}${isVerified ? 'integrity: Verified, ' : ''}`;
    writeFileSync(
      `${folder}.new`,
      `apiVersion: cimlet.dev/v1alpha1
kind: Image
metadata: {name: ${name}}
spec: {source: {ociLayout: ../images/${name}${version}}, platform: {os: windows, architecture: amd64}}
---
apiVersion: cimlet.dev/v1alpha1
kind: LayerChain
metadata: {name: ${name}}
spec: {${chain}layers: [{image: ${name}}], retry: {backoff: 100ms}}
---
apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: {name: ${name}}
spec: {chain: ${name}, path: ${join(views, place)}, retry: {backoff: 100ms}}
`,
    );
    renameSync(`${folder}.new`, file);
  }
}

export function digestOf(content: string): string {
  return createHash('sha256').update(content).digest('hex');
}

function tarOf(items: ReturnType<typeof layerItems>): Buffer {
  const chunks: Uint8Array[] = [];
  const tar = new TarWriter((bytes) => chunks.push(Uint8Array.from(bytes)));
  for (const { content, ...item } of items) {
    const entry = { ...item, mtime: LAYER_TIME };
    if (content === undefined) tar.entry(entry);
    else tar.file(entry, content);
  }
  tar.finish();
  return Buffer.concat(chunks);
}
