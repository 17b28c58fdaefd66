/** Lists that come in pages. Source: OCI distribution-spec v1.1, "Listing Tags" and "Listing Referrers"; RFC 8288. */

import { CimletError } from '../../errors.ts';
import type { HttpResponse } from './http.ts';

/** A target, and its parameters in any order; commas separate links, but not between quotes. */
const LINK = /<([^<>]*)>((?:[^,"]|"[^"]*")*)/g;
const RELATIONS = /;\s*rel\s*=\s*(?:"([^"]*)"|([^\s;]+))/i;

/**
 * Where the page after that at `url` is; undefined when there is none. Throws `unsupported-host` when it isn't on the
 * same server: half a list is none.
 */
export function nextPage(url: URL, { link }: HttpResponse['headers'], operation: string): URL | undefined {
  const target = findNext([link ?? []].flat().join(', '));
  if (target === undefined) return undefined;
  const next = URL.canParse(target, url.href) ? new URL(target, url) : undefined;
  // Mirrors are told which registry is meant, and mostly leave it out of their links.
  const registry = url.searchParams.get('ns');
  if (registry !== null) next?.searchParams.set('ns', registry);
  if (next?.origin === url.origin && next.href !== url.href) return next;
  const named = next === undefined ? 'at no address' : `at ${next.origin}${next.pathname}`;
  throw new CimletError(
    'unsupported-host',
    `${operation}: ${url.host} has the next page ${named}, which is not another page of its own`,
    { hint: 'the registry has to be set up to link to the address that it is asked at' },
  );
}

function findNext(links: string): string | undefined {
  for (const [, target, parameters = ''] of links.matchAll(LINK)) {
    const [, quoted, plain = ''] = RELATIONS.exec(parameters) ?? [];
    if ((quoted ?? plain).toLowerCase().split(/\s+/).includes('next')) return target;
  }
  return undefined;
}
