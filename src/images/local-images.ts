/** Images of layouts and archives on this machine, resolved once for as long as the files they are in stay the same. */

import { statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { classify } from '../errors.ts';
import { type ImageLocation, openImageSource, splitReference } from './image-source.ts';
import { type ImageRequest, resolveImage } from './resolve-image.ts';
import type { ResolvedImage } from './types.ts';

interface Kept {
  image: ResolvedImage;
  /** By file that was used, what it was then. */
  stamps: ReadonlyMap<string, string>;
}

/** When there are more, all are forgotten: most are asked for no longer. */
const MOST_KEPT = 10_000;

export class LocalImages {
  readonly #kept = new Map<string, Kept>();

  /** As `resolveImage` of the location. */
  async resolve(
    location: ImageLocation,
    baseDirectory: string,
    request: ImageRequest,
    signal: AbortSignal,
  ): Promise<ResolvedImage> {
    const identity = JSON.stringify([location, baseDirectory, request]);
    const known = this.#kept.get(identity);
    if (known !== undefined && isAsBefore(known.stamps)) return known.image;
    const stamps = new Map<string, string>();
    // Before the file is read: what is written meanwhile has another stamp.
    const note = (file: string): void => void stamps.set(file, stamps.get(file) ?? stampOf(file));
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

function isAsBefore(stamps: ReadonlyMap<string, string>): boolean {
  for (const [file, stamp] of stamps) if (stampOf(file) !== stamp) return false;
  return true;
}

/** Changes when the file is made, written, replaced or removed. */
function stampOf(file: string): string {
  try {
    const stats = statSync(file, { bigint: true, throwIfNoEntry: false });
    return stats === undefined ? 'none' : `${stats.ino} ${stats.size} ${stats.mtimeNs} ${stats.ctimeNs}`;
  } catch (error) {
    throw classify(error, `look at ${file}`);
  }
}
