/** Copies an image from one place to another, every document and blob as it is. */

import { CimletError } from '../errors.ts';
import type { EffectContext, LayerBlob } from '../hosts/host.ts';
import type { BlobStore } from './blob-store.ts';
import { openBundle } from './bundle.ts';
import { contentBytes, gatherContent, type ImageContent } from './content.ts';
import { dockerArchiveContent } from './docker-archive.ts';
import { readBlob, writeImageArchive } from './image-archive.ts';
import { describePlace, type ImagePlace } from './image-place.ts';
import { listOffers } from './oci-image.ts';
import { ociLayoutSource } from './oci-layout.ts';
import { choosePlatform, describePlatform } from './platform.ts';
import { linkAbort } from './registry/linked-abort.ts';
import type { Registries } from './registry/registries.ts';
import { sumProgress } from './sum-progress.ts';
import type {
  Descriptor,
  HostPlatform,
  ImageBlobs,
  ImageSource,
  OpenedImage,
  PlatformWish,
} from './types.ts';

export interface CopyServices {
  /** The images of this root. */
  store: BlobStore;
  /** Fetches into `store`, and pushes. */
  registries: Registries;
  /** Another layout, as a store to copy into. */
  openLayout(directory: string): BlobStore;
  host: HostPlatform;
}

export interface CopyRequest {
  from: ImagePlace;
  to: ImagePlace;
  wish: PlatformWish;
  /** All platforms, and whatever else an index names. */
  all: boolean;
}

export interface CopiedImage {
  reference: string;
  /** What the copy's reference leads to. */
  top: Descriptor;
  bytes: number;
}

/** Throws `not-found` when it isn't there, or has no such platform, `corrupt` for damaged blobs. */
export async function copyImage(
  { from, to, wish, all }: CopyRequest,
  services: CopyServices,
  effect: EffectContext,
): Promise<CopiedImage> {
  const found = await readImage(from, { wish, all }, services, effect);
  const reference = referenceAt(to) ?? found.reference;
  if (reference === undefined) {
    throw new CimletError('invalid-manifest', `copy ${describePlace(from)}: the copy has no name`, {
      hint: `add one, as in ${describePlace(to)}:latest`,
    });
  }
  const { digest } = found.content.top;
  const named = /@(.+)$/.exec(reference)?.[1];
  if (named !== undefined && named !== digest) {
    throw new CimletError(
      'invalid-manifest',
      `copy ${describePlace(from)}: the copy is ${digest}, not ${named}`,
      {
        hint: 'copy it with --all, or name it by a tag',
      },
    );
  }
  await writeImage(to, { reference, content: found.content }, services, effect);
  return { reference, top: found.content.top, bytes: contentBytes(found.content) };
}

/** An image with everything it consists of, here on this machine: what a registry has is fetched into the store. */
export async function readImage(
  place: ImagePlace,
  choice: Pick<CopyRequest, 'wish' | 'all'>,
  { store, registries, host }: Omit<CopyServices, 'openLayout'>,
  effect: EffectContext,
): Promise<{ content: ImageContent; reference: string | undefined }> {
  const { signal } = effect;
  if (place.kind === 'archive' && place.isDocker) {
    const { tag, ...content } = await dockerArchiveContent(
      await openBundle(place.path, signal),
      place.tag,
      signal,
    );
    return { content, reference: place.tag ?? tag };
  }
  const select = async ({ blobs, entries }: OpenedImage, name: string) =>
    gatherContent(blobs, await chooseTop(blobs, entries, { ...choice, host, name, signal }), signal);

  if (place.kind === 'registry') {
    const { reference } = place;
    const source = registries.source({
      reference,
      policy: 'Always',
      foreignLayers: 'registry-first',
      digest: undefined,
    });
    if (source.open === undefined) throw new Error(`${source.name} can't be copied as it is`);
    const content = await select(await source.open(signal), source.name);
    await fetchAll(content.blobs.map(toLayerBlob), registries, effect);
    return { content, reference };
  }
  const tag = place.kind === 'store' ? place.reference : place.tag;
  const source =
    place.kind === 'store'
      ? await storedSource(store, place.reference, signal)
      : ociLayoutSource(await openBundle(place.path, signal), tag);
  if (source.open === undefined) throw new Error(`${source.name} can't be copied as it is`);
  const opened = await source.open(signal);
  const [entry] = opened.entries;
  return {
    content: await select(opened, describePlace(place)),
    reference: tag ?? entry?.annotations['org.opencontainers.image.ref.name'],
  };
}

/** The first failure ends them all: half an image is no use here. */
async function fetchAll(
  blobs: readonly LayerBlob[],
  registries: Registries,
  effect: EffectContext,
): Promise<void> {
  const siblings = linkAbort(effect.signal);
  const progressOf = sumProgress(blobs, effect);
  const fetching = blobs.map((blob) =>
    registries.fetchLayer(blob, { ...effect, signal: siblings.signal, progress: progressOf(blob) }),
  );
  try {
    await Promise.all(fetching);
  } catch (error) {
    siblings.abort(error);
    await Promise.allSettled(fetching);
    throw error;
  } finally {
    siblings.unlink();
  }
}

/** An image of a root. Throws `not-found` when it has none of that reference. */
export async function storedSource(
  store: BlobStore,
  reference: string,
  signal: AbortSignal,
): Promise<ImageSource> {
  if ((await store.findImage(reference)) === undefined) {
    throw new CimletError('not-found', `${reference} is not among the images in ${store.directory}`, {
      hint: 'cimlet image ls lists them; docker:// before a name means a registry',
    });
  }
  return ociLayoutSource(await openBundle(store.directory, signal), reference);
}

async function writeImage(
  place: ImagePlace,
  { reference, content }: { reference: string; content: ImageContent },
  { store, registries, openLayout }: CopyServices,
  effect: EffectContext,
): Promise<void> {
  if (place.kind === 'registry') {
    await registries.push({ reference, content }, effect);
    return;
  }
  if (place.kind === 'archive') {
    const onBytes = countExported(contentBytes(content), effect);
    await writeImageArchive(place.path, [{ reference, content }], effect.signal, onBytes);
    return;
  }
  await addToLayout(place.kind === 'store' ? store : openLayout(place.path), { reference, content }, effect);
}

/** Blobs first, then what names them. */
async function addToLayout(
  layout: BlobStore,
  { reference, content }: { reference: string; content: ImageContent },
  effect: EffectContext,
): Promise<void> {
  const { signal } = effect;
  const onBytes = countExported(contentBytes(content), effect);
  for (const { descriptor, range } of content.blobs) {
    await layout.addBlob(
      descriptor,
      async (ingest) => {
        await ingest.reset();
        for await (const chunk of readBlob(descriptor, range, signal)) {
          await ingest.write(chunk);
          onBytes(chunk.length);
        }
        await ingest.commit();
      },
      signal,
    );
  }
  for (const { descriptor, bytes } of content.documents) await layout.addDocument(descriptor.digest, bytes);
  await layout.recordImage({ reference, descriptor: content.top });
}

async function chooseTop(
  blobs: ImageBlobs,
  entries: Descriptor[],
  {
    wish,
    all,
    host,
    name,
    signal,
  }: Pick<CopyRequest, 'wish' | 'all'> & { host: HostPlatform; name: string; signal: AbortSignal },
): Promise<Descriptor> {
  const [entry, ...others] = entries;
  if (all && entry !== undefined && others.length === 0) return entry;
  const offers = await listOffers(blobs, entries, signal);
  const [only, ...rivals] = offers;
  const isOnly = only !== undefined && rivals.length === 0 && Object.keys(wish).length === 0;
  const chosen = isOnly ? only : choosePlatform(offers, wish, host)?.offer;
  if (chosen?.manifest !== undefined) return chosen.manifest;
  const offered = offers.map(({ platform }) => describePlatform(platform)).join(', ') || 'nothing';
  throw new CimletError(
    'not-found',
    `${name} has no image for ${describePlatform({ ...host, ...wish })}; it offers ${offered}`,
    {
      hint: 'name one with --platform, or take --all',
    },
  );
}

function referenceAt(place: ImagePlace): string | undefined {
  return place.kind === 'registry' || place.kind === 'store' ? place.reference : place.tag;
}

function toLayerBlob({ descriptor, range }: ImageContent['blobs'][number]): LayerBlob {
  return { ...range, digest: descriptor.digest, mediaType: descriptor.mediaType };
}

/** Told of the bytes of each step, reports how many of `total` there are. */
export function countExported(total: number, { progress }: EffectContext): (bytes: number) => void {
  let done = 0;
  return (bytes) => {
    done += bytes;
    progress?.({ phase: 'exporting', done, total });
  };
}
