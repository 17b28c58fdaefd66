/** What is declared in a chaos run: some apps, each an Image, a LayerChain and a Mount, in one of several shapes. */

import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeOciLayout } from '../../src/images/layout-writer.ts';
import { TarWriter } from '../../src/tar/tar-writer.ts';
import { LAYER_TIME, layerItems } from '../support/host-layers.ts';
import type { Random } from './random.ts';

/** Declared by the folder, their images in layouts. */
export const FOLDER_APPS = ['a', 'b', 'c', 'd', 'e', 'f'] as const;
/** Declared by the repository, their images in the registry. */
export const GIT_APPS = ['g', 'h'] as const;
/** Declared by the folder while the agent is to die at what only writable Mounts have. */
export const WRITABLE_APP = 'w';
/** Declared by the folder: layers of Linux, each with its dm-verity tree. */
export const LINUX_APP = 'l' as const;
export type GitApp = (typeof GIT_APPS)[number];
export type AppName = (typeof FOLDER_APPS)[number] | GitApp | typeof WRITABLE_APP | typeof LINUX_APP;

export function isGitApp(name: AppName): name is GitApp {
  return GIT_APPS.some((each) => each === name);
}

export interface Shape {
  format: 'ForkedCIM' | 'BlockCIM' | 'LCOW';
  isVerified: boolean;
  isWritable?: boolean;
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
  for (const name of [...FOLDER_APPS, ...GIT_APPS, WRITABLE_APP, LINUX_APP]) {
    const isLinux = name === LINUX_APP;
    const itemsOf = isLinux ? linuxItems : layerItems;
    const base = tarOf(itemsOf(BASE));
    const own = tarOf(itemsOf({ [`${name}.txt`]: `app ${name}` }));
    const more = tarOf(itemsOf({ 'dir/kept.txt': null, 'dir/new.txt': `second ${name}` }));
    for (const [version, tars] of [
      [1, [base, own]],
      [2, [base, own, more]],
    ] as const) {
      await writeOciLayout(join(directory, `${name}${version}`), {
        platform: isLinux
          ? { os: 'linux', architecture: 'amd64' }
          : { os: 'windows', architecture: 'amd64', osVersion: '10.0.26100.1742' },
        layers: tars.map((tar) => ({ tar: [tar], compression: 'gzip' as const })),
        ref: 'v1',
      });
    }
  }
}

/** As layers of Linux have them: nothing is below `Files`. */
function linuxItems(files: Record<string, string | null>): ReturnType<typeof layerItems> {
  return layerItems(files)
    .filter(({ name }) => name !== 'Files/')
    .map((item) => ({ ...item, name: item.name.replace('Files/', '') }));
}

export function randomShape(name: AppName, random: Random): Shape {
  const format =
    name === LINUX_APP ? 'LCOW' : (random.pick(['ForkedCIM', 'BlockCIM'] as const) ?? 'ForkedCIM');
  return {
    format,
    isVerified: format === 'LCOW' || (format === 'BlockCIM' && random.below(2) === 0),
    version: random.below(2) === 0 ? 1 : 2,
    place: random.below(3) === 0 ? `${name}-moved` : name,
  };
}

/** `source`: the Image's `spec.source`, a flow mapping. `views`: folder of the mount points. */
export function manifestOf(name: AppName, shape: Shape, source: string, views: string): string {
  const { format, isVerified, isWritable = false, place } = shape;
  const chain = `format: ${format}, ${format === 'BlockCIM' ? 'merge: true, ' : ''}${isVerified ? 'integrity: Verified, ' : ''}`;
  return `apiVersion: cimlet.dev/v1alpha1
kind: Image
metadata: {name: ${name}}
spec: {source: ${source}, platform: {os: ${format === 'LCOW' ? 'linux' : 'windows'}, architecture: amd64}, retry: {backoff: 100ms}}
---
apiVersion: cimlet.dev/v1alpha1
kind: LayerChain
metadata: {name: ${name}}
spec: {${chain}layers: [{image: ${name}}], retry: {backoff: 100ms}}
---
apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: {name: ${name}}
spec: {chain: ${name}, path: ${join(views, place)}, ${isWritable ? 'access: ReadWrite, ' : ''}retry: {backoff: 100ms}}
`;
}

/** Makes the folder declare exactly these, each file replaced as editors do. */
export function declareInFolder(folder: string, views: string, apps: ReadonlyMap<AppName, Shape>): void {
  mkdirSync(folder, { recursive: true });
  for (const name of [...FOLDER_APPS, WRITABLE_APP, LINUX_APP] as const) {
    const file = join(folder, `${name}.yaml`);
    const shape = apps.get(name);
    if (shape === undefined) {
      rmSync(file, { force: true });
      continue;
    }
    const source = `{ociLayout: ../images/${name}${shape.version}}`;
    writeFileSync(`${folder}.new`, manifestOf(name, shape, source, views));
    renameSync(`${folder}.new`, file);
  }
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
