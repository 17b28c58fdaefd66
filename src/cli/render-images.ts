/** Images of a root, as tables and texts. */

import { describePlatform } from '../images/platform.ts';
import type { ImageInventory } from '../images/stored-images.ts';
import type { ResolvedImage } from '../images/types.ts';
import { renderTable } from './table.ts';
import { formatAge, formatBytes, type Paint, printable, shortenDigests } from './text.ts';

/** `now`: milliseconds since 1970. */
export function imageTable(
  images: readonly ImageInventory[],
  width: number,
  paint: Paint,
  now: number,
): string[] {
  return renderTable(
    images,
    [
      { heading: 'IMAGE', value: ({ reference }) => reference, shrinks: true },
      { heading: 'DIGEST', value: ({ descriptor }) => shortenDigests(descriptor.digest) },
      {
        heading: 'PLATFORM',
        value: ({ platforms }) => platforms.map(platformText).join(', '),
      },
      {
        heading: 'SIZE',
        value: ({ platforms }) => formatBytes(platforms.reduce((sum, { bytes }) => sum + bytes, 0)),
      },
      {
        heading: 'ASKED',
        value: ({ resolvedAt }) => (resolvedAt === undefined ? '' : `${formatAge(now - resolvedAt)} ago`),
      },
    ],
    width,
    paint,
  );
}

function platformText({ platform, isWhole }: ImageInventory['platforms'][number]): string {
  const name = platform === undefined ? 'unknown' : describePlatform(platform);
  return isWhole ? name : `${name} (in part)`;
}

export interface InspectedImage extends Pick<ResolvedImage, 'digest' | 'platform' | 'bytes'> {
  image: string;
  layers: { diffId: string; digest: string; size: number; mediaType: string }[];
}

export function inspection({ image, digest, platform, bytes, layers }: InspectedImage): string[] {
  return [
    `Image:     ${image}`,
    `Digest:    ${digest}`,
    `Platform:  ${describePlatform(platform)}`,
    `Size:      ${formatBytes(bytes)}`,
    'Layers:',
    ...layers.flatMap((layer) => [
      `  ${layer.digest}  ${formatBytes(layer.size)}`,
      `    diff ID ${layer.diffId}`,
      `    ${layer.mediaType}`,
    ]),
  ].map(printable);
}
