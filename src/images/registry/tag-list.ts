/** One page of a repository's tags. Source: OCI distribution-spec v1.1, "Listing Tags". */

import { parseTagList } from '../documents.ts';
import type { HttpResponse } from './http.ts';
import { isTag } from './reference.ts';

/** The tags of a page that are tags; servers may list names that nothing can be pulled by. */
export function parseTags(bytes: Uint8Array, name: string): string[] {
  return parseTagList(bytes, name).filter(isTag);
}

/** Where the next page is: on the same server, whatever the answer says. */
export function nextPage({ headers, url }: Pick<HttpResponse, 'headers' | 'url'>): URL | undefined {
  const links = [headers.link ?? []].flat().join(', ');
  const target = /<([^>]*)>\s*;\s*rel="?next"?/i.exec(links)?.[1];
  if (target === undefined || !URL.canParse(target, url.href)) return undefined;
  const next = new URL(target, url);
  return next.origin === url.origin && next.href !== url.href ? next : undefined;
}
