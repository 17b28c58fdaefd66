/** Images of layouts and archives on this machine, resolved once for as long as the files they are in stay the same. */

import { join, resolve } from 'node:path';
import { type Stamp, stampOf, Turns } from '../hosts/quick-look.ts';
import { type ImageLocation, openImageSource, splitReference } from './image-source.ts';
import { type ImageRequest, resolveImage } from './resolve-image.ts';
import type { ResolvedImage } from './types.ts';

interface Kept {
  image: ResolvedImage;
  /** By file that was used, what it was then; undefined: not there. */
  stamps: ReadonlyMap<string, Stamp | undefined>;
}

/** When there are more, all are forgotten: most are asked for no longer. */
const MOST_KEPT = 10_000;

export class LocalImages {
  readonly #kept = new Map<string, Kept>();
  readonly #turns = new Turns();

  /** As `resolveImage` of the location. */
  async resolve(
    location: ImageLocation,
    baseDirectory: string,
    request: ImageRequest,
    signal: AbortSignal,
  ): Promise<ResolvedImage> {
    const identity = JSON.stringify([location, baseDirectory, request]);
    const known = this.#kept.get(identity);
    if (this.#turns.isOver) await this.#turns.giveWay();
    if (known !== undefined && isAsBefore(known.stamps)) return known.image;
    const stamps = new Map<string, Stamp | undefined>();
    // Before the file is read: what is written meanwhile has another stamp.
    const note = (file: string): void => {
      if (!stamps.has(file)) stamps.set(file, stampOf(file));
    };
    for (const file of await entrancesOf(location, baseDirectory)) note(file);
    const source = await openImageSource(location, baseDirectory, signal, note);
    const image = await resolveImage(source, request, signal);
    if (this.#kept.size >= MOST_KEPT) this.#kept.clear();
    this.#kept.set(identity, { image, stamps });
    return image;
  }
}

/** As they are named, since links may lead elsewhere later. */
async function entrancesOf(
  { ociLayout, dockerArchive }: ImageLocation,
  baseDirectory: string,
): Promise<string[]> {
  const { path } = await splitReference(resolve(baseDirectory, ociLayout ?? dockerArchive ?? ''));
  return [path, join(path, 'index.json'), join(path, 'manifest.json')];
}

function isAsBefore(stamps: ReadonlyMap<string, Stamp | undefined>): boolean {
  for (const [file, stamp] of stamps) if (stampOf(file, stamp) !== stamp) return false;
  return true;
}
