/** Lists that come in pages. Source: OCI distribution-spec v1.1, "Listing Tags" and "Listing Referrers"; RFC 8288. */

import type { HttpResponse } from './http.ts';

/** Where the next page is: on the same server, whatever the answer says. */
export function nextPage({ headers, url }: Pick<HttpResponse, 'headers' | 'url'>): URL | undefined {
  const links = [headers.link ?? []].flat().join(', ');
  const target = /<([^>]*)>\s*;\s*rel="?next"?/i.exec(links)?.[1];
  if (target === undefined || !URL.canParse(target, url.href)) return undefined;
  const next = new URL(target, url);
  return next.origin === url.origin && next.href !== url.href ? next : undefined;
}
