/**
 * One tar for several images, which is an OCI layout and a docker archive at once, as docker itself has saved them since
 * version 25. The same images give the same bytes.
 */

import { once } from 'node:events';
import { createReadStream, createWriteStream } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { finished } from 'node:stream/promises';
import { CimletError, classify } from '../errors.ts';
import { TarWriter } from '../tar/tar-writer.ts';
import type { FileRange } from './bundle.ts';
import type { ImageContent } from './content.ts';
import { DigestCheck } from './digest.ts';
import { parseManifest } from './documents.ts';
import { isIndex, MEDIA_TYPES } from './oci-image.ts';
import type { Descriptor } from './types.ts';

export interface NamedContent {
  content: ImageContent;
  /** As `parseReference` spells it: the archive's tag for it. */
  reference: string;
}

const READ_BYTES = 1 << 20;
const LAYOUT = { imageLayoutVersion: '1.0.0' };

/** Written beside `file` first; a file that is there is replaced. Blobs are checked while they are copied: `corrupt`. */
export async function writeImageArchive(
  file: string,
  images: readonly NamedContent[],
  signal: AbortSignal,
  onBytes: (bytes: number) => void = () => undefined,
): Promise<void> {
  const temporary = `${file}.tmp-${process.pid}`;
  const output = createWriteStream(temporary);
  const ended = finished(output);
  // Told where it is awaited.
  ended.catch(() => undefined);
  let isFull = false;
  const tar = new TarWriter((bytes) => {
    isFull = !output.write(bytes);
  });
  const flush = async (): Promise<void> => {
    if (isFull) await Promise.race([once(output, 'drain', { signal }), ended]);
    isFull = false;
  };
  const add = async (name: string, bytes: Uint8Array): Promise<void> => {
    tar.file({ name, mode: 0o444 }, bytes);
    await flush();
  };

  try {
    await add('oci-layout', toJson(LAYOUT));
    const written = new Set<string>();
    for (const { content } of images) {
      for (const { descriptor, range } of content.blobs) {
        if (written.has(descriptor.digest)) continue;
        written.add(descriptor.digest);
        tar.entry({ name: blobName(descriptor), type: 'file', size: range.size, mode: 0o444 });
        for await (const chunk of readBlob(descriptor, range, signal)) {
          tar.data(chunk);
          onBytes(chunk.length);
          await flush();
        }
      }
      for (const { descriptor, bytes } of content.documents) {
        if (written.has(descriptor.digest)) continue;
        written.add(descriptor.digest);
        await add(blobName(descriptor), bytes);
      }
    }
    await add('index.json', toJson(indexOf(images)));
    await add('manifest.json', toJson(dockerManifestOf(images)));
    tar.finish();
    output.end();
    await ended;
    await rename(temporary, file);
  } catch (error) {
    throw classify(error, `write ${file}`);
  } finally {
    output.destroy();
    await rm(temporary, { force: true });
  }
}

/** A blob's bytes, which at the end must have had its digest. */
export async function* readBlob(
  { digest, size }: Descriptor,
  { file, offset }: FileRange,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  if (size === 0) return;
  const check = new DigestCheck(digest);
  try {
    const options = { start: offset, end: offset + size - 1, highWaterMark: READ_BYTES, signal };
    for await (const chunk of createReadStream(file, options) as AsyncIterable<Buffer>) {
      check.update(chunk);
      yield chunk;
    }
  } catch (error) {
    throw classify(error, `read blob ${digest} in ${file}`);
  }
  const found = check.mismatch();
  if (found === undefined) return;
  throw new CimletError('corrupt', `blob ${digest} in ${file}: its bytes have digest ${found}`, {
    hint: 'the blob is damaged; copy or fetch the image again',
  });
}

/** The entry of an index that leads to an image by its reference. */
function namedEntry(reference: string, { mediaType, digest, size }: Descriptor): Record<string, unknown> {
  return { mediaType, digest, size, annotations: { 'org.opencontainers.image.ref.name': reference } };
}

function indexOf(images: readonly NamedContent[]): Record<string, unknown> {
  const manifests = images.map(({ reference, content }) => namedEntry(reference, content.top));
  return { schemaVersion: 2, mediaType: MEDIA_TYPES.index, manifests };
}

/** Docker knows no indexes: it gets each image's first platform. */
function dockerManifestOf(images: readonly NamedContent[]): unknown[] {
  return images.flatMap(({ reference, content }) => {
    const manifest = content.documents.find(({ descriptor }) => !isIndex(descriptor));
    if (manifest === undefined) return [];
    const { config, layers } = parseManifest(manifest.bytes, `manifest ${manifest.descriptor.digest}`);
    const tags = reference.includes('@') ? [] : [reference];
    return [{ Config: blobName(config), RepoTags: tags, Layers: layers.map(blobName) }];
  });
}

function blobName({ digest }: Descriptor): string {
  return `blobs/${digest.replace(':', '/')}`;
}

function toJson(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}
