/** The images of a root as entries of its index.json, which other tools read too. */

import type { Descriptor, TaggedDescriptor } from './types.ts';

/** What a reference led to when its image was last fetched. */
export interface StoredImage {
  /** As `parseReference` spells it. */
  reference: string;
  descriptor: TaggedDescriptor;
  /** When a registry last said so, in milliseconds since 1970. */
  resolvedAt?: number | undefined;
  /** When it was last found to be in use, in milliseconds since 1970. */
  usedAt?: number | undefined;
}

const REFERENCE = 'org.opencontainers.image.ref.name';
const RESOLVED_AT = 'dev.cimlet.resolved-at';
const USED_AT = 'dev.cimlet.used-at';
const ETAG = 'dev.cimlet.etag';
const ETAG_HOST = 'dev.cimlet.etag-host';

/** None for what somebody else put there without a reference. */
export function fromEntry({ annotations, ...descriptor }: Descriptor): StoredImage[] {
  const { [REFERENCE]: reference, [ETAG]: value, [ETAG_HOST]: host } = annotations;
  if (reference === undefined) return [];
  const etag = value === undefined || host === undefined ? {} : { etag: { host, value } };
  return [
    {
      reference,
      descriptor: { ...descriptor, annotations: {}, ...etag },
      resolvedAt: timeIn(annotations[RESOLVED_AT]),
      usedAt: timeIn(annotations[USED_AT]),
    },
  ];
}

function timeIn(text = ''): number | undefined {
  const time = Date.parse(text);
  return Number.isNaN(time) ? undefined : time;
}

export function toEntry({ reference, descriptor, resolvedAt, usedAt }: StoredImage): Record<string, unknown> {
  const { mediaType, digest, size, etag } = descriptor;
  return {
    mediaType,
    digest,
    size,
    annotations: {
      [REFERENCE]: reference,
      ...(resolvedAt === undefined ? {} : { [RESOLVED_AT]: new Date(resolvedAt).toISOString() }),
      ...(usedAt === undefined ? {} : { [USED_AT]: new Date(usedAt).toISOString() }),
      ...(etag === undefined ? {} : { [ETAG]: etag.value, [ETAG_HOST]: etag.host }),
    },
  };
}
