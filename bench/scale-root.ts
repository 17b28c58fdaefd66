/**
 * A root as large as one host's gets, made in seconds: the records of thousands of layers whose files are links to those
 * of one real layer, and extracted views. Who only looks at sizes and links, as observing does, can't tell.
 */

import { linkSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createEmbeddedHost } from '../src/hosts/embedded/embedded-host.ts';
import type { ViewRecord } from '../src/hosts/embedded/own-mounts.ts';
import type { ChainId, DiffId, MountRequest } from '../src/hosts/host.ts';
import { chainIds, hexOf, layerRegionGuid, mountVolumeGuid } from '../src/hosts/identity.ts';
import {
  extractedPath,
  type Layout,
  layerFolder,
  layoutOf,
  mountRecordPath,
  snapshotPath,
} from '../src/hosts/layout.ts';
import { type LayerRecord, readLayerRecord } from '../src/hosts/records.ts';
import { type WrittenImage, writeOciLayout } from '../src/images/layout-writer.ts';
import { TarWriter } from '../src/tar/tar-writer.ts';

export interface Scale {
  images: number;
  layersPerImage: number;
  /** At most as many as images. */
  mounts: number;
}

export interface ScaleRoot {
  root: string;
  /** One file for each image, with its chain and its mount. */
  manifests: string;
  images: string;
  views: string;
}

const PLATFORM = { os: 'windows', architecture: 'amd64' };

/** Everything below `directory`, which is there and empty. */
export async function makeScaleRoot(directory: string, scale: Scale): Promise<ScaleRoot> {
  const place = (name: string) => join(directory, name);
  const [root, manifests, images, views] = [
    place('root'),
    place('manifests'),
    place('images'),
    place('views'),
  ];
  const layout = layoutOf(root);
  const template = await makeTemplate(join(directory, 'template'));
  for (const folder of [
    layout.cimLayers,
    layout.snapshots,
    layout.mounts,
    layout.extracted,
    manifests,
    views,
  ])
    mkdirSync(folder, { recursive: true });
  for (let index = 0; index < scale.images; index++) {
    const layers = Array.from({ length: scale.layersPerImage }, (_, depth) => ({
      tar: [Buffer.from(`layer ${depth} of ${index}`)],
      compression: 'none' as const,
    }));
    const name = nameOf(index);
    const [image] = await writeOciLayout(join(images, name), { layers, platform: PLATFORM });
    const chain = writeLayers(layout, template, image?.layers ?? []);
    const isMounted = index < scale.mounts;
    if (isMounted) writeView(layout, join(views, name), name, chain);
    writeFileSync(
      join(manifests, `${name}.yaml`),
      manifestOf(name, { images, views: isMounted ? views : undefined }),
    );
  }
  return { root, manifests, images, views };
}

export function nameOf(index: number): string {
  return `app-${String(index).padStart(4, '0')}`;
}

/** Without `views` it has no mount. `label` changes nothing but the file. */
export function manifestOf(
  name: string,
  { images, views }: { images: string; views: string | undefined },
  label = 'none',
): string {
  const header = 'apiVersion: cimlet.dev/v1alpha1\n';
  const documents = [
    `${header}kind: Image\nmetadata: {name: ${name}, labels: {edition: ${label}}}\nspec:\n  source: {ociLayout: ${join(images, name)}}\n  platform: {os: windows, architecture: amd64}\n`,
    `${header}kind: LayerChain\nmetadata: {name: ${name}}\nspec:\n  format: ForkedCIM\n  layers:\n    - image: ${name}\n`,
  ];
  if (views !== undefined) {
    const mount = `kind: Mount\nmetadata: {name: ${name}}\nspec:\n  chain: ${name}\n  path: ${join(views, name)}\n  view: Extracted\n`;
    documents.push(header + mount);
  }
  return documents.join('---\n');
}

/** A real layer, and the folder of its files. */
async function makeTemplate(directory: string): Promise<{ record: LayerRecord; folder: string }> {
  const chunks: Uint8Array[] = [];
  const tar = new TarWriter((bytes) => chunks.push(Uint8Array.from(bytes)));
  tar.entry({ name: 'Files/', type: 'directory', mtime: 0n });
  tar.file({ name: 'Files/a.txt', mtime: 0n }, Buffer.from('a'));
  tar.finish();
  const layers = [{ tar: chunks, compression: 'none' as const }];
  const [image] = await writeOciLayout(join(directory, 'image'), { layers, platform: PLATFORM });
  const [layer] = image?.layers ?? [];
  if (layer === undefined) throw new Error('an image of one layer was written');
  const { diffId, digest, size } = layer;
  const chainId = diffId as string as ChainId;
  const host = createEmbeddedHost({ root: join(directory, 'root') });
  const ref = { chainId, format: 'ForkedCIM' as const };
  const context = { signal: new AbortController().signal, progress: () => undefined };
  const file = join(directory, 'image/blobs/sha256', hexOf(digest));
  const blob = { file, offset: 0, size, digest, mediaType: 'application/vnd.oci.image.layer.v1.tar' };
  await host.unpackLayer({ ...ref, diffId, parents: [], blob }, context);
  await host.commitLayer(ref, context);
  const layout = layoutOf(host.root);
  const record = await readLayerRecord(layout, ref);
  if (record === undefined) throw new Error('a layer was committed');
  return { record, folder: layout.cimLayers };
}

function writeLayers(
  layout: Layout,
  { record, folder }: { record: LayerRecord; folder: string },
  layers: WrittenImage['layers'],
): ChainId[] {
  const diffIds: DiffId[] = layers.map(({ diffId }) => diffId);
  const ids = chainIds(diffIds);
  const [before, own] = [hexOf(record.layer.chainId), layerRegionGuid(record.layer.chainId)];
  for (const [depth, chainId] of ids.entries()) {
    const rename = (name: string) =>
      name.replace(before, hexOf(chainId)).replace(own, layerRegionGuid(chainId));
    const cimFiles = record.cimFiles.map(({ name, size }) => {
      linkSync(join(folder, name), join(layout.cimLayers, rename(name)));
      return { name: rename(name), size };
    });
    const parent = ids[depth - 1];
    const diffId = diffIds[depth] ?? record.layer.diffId;
    const layer = { ...record.layer, chainId, diffId, ...(parent === undefined ? {} : { parent }) };
    const snapshot = snapshotPath(layout, layerFolder(layer));
    mkdirSync(snapshot);
    writeFileSync(join(snapshot, 'layer.json'), JSON.stringify({ ...record, layer, cimFiles }, undefined, 2));
  }
  return ids;
}

function writeView(layout: Layout, path: string, name: string, chain: ChainId[]): void {
  const volumeGuid = mountVolumeGuid(name);
  const request: MountRequest = {
    volumeGuid,
    path,
    chain,
    format: 'ForkedCIM',
    view: 'Extracted',
    access: 'ReadOnly',
  };
  const source = extractedPath(layout, volumeGuid);
  const record: ViewRecord = {
    formatVersion: 1,
    request,
    source,
    loop: false,
    created: [],
    replacedDirectory: false,
  };
  mkdirSync(source);
  symlinkSync(source, path);
  writeFileSync(mountRecordPath(layout, volumeGuid), JSON.stringify(record, undefined, 2));
}
