/** Chooses the one image meant among those a source offers. */

import { CimletError, classify } from '../errors.ts';
import { choosePlatform, describePlatform, matchesPlatform } from './platform.ts';
import type { HostPlatform, ImageOffer, ImageSource, PlatformWish, ResolvedImage } from './types.ts';

export interface ImageRequest {
  /** `spec.platform`. */
  platform?: PlatformWish | undefined;
  /** `spec.digest`: of the manifest, or of an index that leads to it (docker archive: of the configuration). */
  digest?: string | undefined;
  host: HostPlatform;
}

/**
 * Chooses by pin and platform, verifies the documents that lead to the image, and finds its layer blobs. Layer blobs
 * are looked at (present, of the declared size) but not read: `openLayerStream` verifies them.
 *
 * Throws `not-found` when nothing suits (saying what is offered) or a blob is missing, `corrupt` for documents that
 * don't hold together.
 */
export async function resolveImage(
  source: ImageSource,
  request: ImageRequest,
  signal: AbortSignal,
): Promise<ResolvedImage> {
  try {
    return await resolve(source, request, signal);
  } catch (error) {
    throw classify(error, `resolve image in ${source.name}`);
  }
}

async function resolve(
  source: ImageSource,
  request: ImageRequest,
  signal: AbortSignal,
): Promise<ResolvedImage> {
  const { platform: wish = {}, digest: pin, host } = request;
  const offers = await source.list(signal);
  if (offers.length === 0) throw new CimletError('not-found', `${source.name} holds no container image`);
  const pinned = pin === undefined ? offers : applyPin(offers, pin, source);
  const choice = choosePlatform(pinned, wish, host);
  if (choice === undefined) throw nothingSuits(source, pinned, wish, host);
  if (choice.rivals.length > 0) throw ambiguous(source, [choice.offer, ...choice.rivals]);

  const image = await choice.offer.load(signal);
  // An index may leave the version out, or be wrong about what it points to.
  if (!matchesPlatform({ ...choice.offer.platform, ...image.platform }, wish, host)) {
    throw nothingSuits(source, [{ ...choice.offer, platform: image.platform }], wish, host);
  }
  const warnings = [...(image.warnings ?? []), choice.warning ?? []].flat();
  const { indexes } = choice.offer;
  return { ...image, indexes, ...(warnings.length === 0 ? {} : { warnings }) };
}

function applyPin(offers: ImageOffer[], pin: string, source: ImageSource): ImageOffer[] {
  const pinned = offers.filter(({ digest, indexes }) => [...indexes, digest].some((found) => found === pin));
  if (pinned.length > 0) return pinned;
  const found = [...new Set(offers.map(({ indexes, digest }) => indexes[0] ?? digest))];
  throw new CimletError('not-found', `${source.name} is pinned to ${pin}, but has ${found.join(', ')}`, {
    hint: 'set spec.digest to the digest it has, or put the pinned image back',
  });
}

function nothingSuits(
  source: ImageSource,
  offers: ImageOffer[],
  wish: PlatformWish,
  host: HostPlatform,
): CimletError {
  const wanted = describePlatform({ architecture: host.architecture, ...dropAbsent(wish) });
  const self = describePlatform(host);
  const offered = offers.slice(0, 20).map(({ platform }) => describePlatform(platform));
  const more = offers.length > offered.length ? ` and ${offers.length - offered.length} more` : '';
  return new CimletError(
    'not-found',
    `${source.name} has no image for ${wanted} (this host is ${self}); it offers ${offered.join(', ')}${more}`,
    { hint: 'set spec.platform to one of those, or use an image built for this host' },
  );
}

function ambiguous(source: ImageSource, offers: ImageOffer[]): CimletError {
  const [first] = offers as [ImageOffer];
  const offered = offers
    .slice(0, 20)
    .map(({ digest, ref }) => (ref === undefined ? digest : `${ref} (${digest})`));
  return new CimletError(
    'not-found',
    `${source.name} has ${offers.length} images for ${describePlatform(first.platform)}, and none is named: ${offered.join(', ')}`,
    { hint: 'name one as path:tag, or pin spec.digest' },
  );
}

function dropAbsent(wish: PlatformWish): PlatformWish {
  return Object.fromEntries(Object.entries(wish).filter(([, value]) => value !== undefined));
}
