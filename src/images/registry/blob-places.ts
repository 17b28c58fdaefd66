/** Where a layer can be had: from the hosts of its registry, and from the URLs that foreign layers name. */

import { CimletError } from '../../errors.ts';
import type { Digest } from '../../hosts/host.ts';
import type { Descriptor } from '../types.ts';
import { type BlobPlace, rangeFrom, toStream } from './blob-stream.ts';
import type { Endpoint } from './endpoints.ts';
import { type RegistryServices, requestTo, sendSigned, standardHeaders } from './exchange.ts';
import type { ImageReference } from './reference.ts';

export type ForeignLayers = 'registry-first' | 'urls-first' | 'never';

/** In the order to try. Throws `failed-precondition` for a hosts.toml that can't be followed. */
export async function findBlobPlaces(
  services: RegistryServices,
  reference: ImageReference,
  layer: Descriptor,
  policy: ForeignLayers,
): Promise<BlobPlace[]> {
  const endpoints = await services.findEndpoints(reference.registry);
  const own = endpoints
    .filter(({ canPull }) => canPull)
    .map((endpoint) => placeAt(services, reference, endpoint, layer.digest));
  if (policy === 'never') return own;
  const foreign = await Promise.all(layer.urls.map((url) => foreignPlace(services, url)));
  return policy === 'urls-first' ? [...foreign, ...own] : [...own, ...foreign];
}

function placeAt(
  services: RegistryServices,
  { repository }: ImageReference,
  endpoint: Endpoint,
  digest: Digest,
): BlobPlace {
  return {
    host: endpoint.host,
    open: async (offset, signal) => {
      const request = requestTo(endpoint, 'GET', `${repository}/blobs/${digest}`, rangeFrom(offset));
      const scope = `repository:${repository}:pull`;
      const response = await sendSigned(services, { endpoint, scope, request }, signal);
      return toStream(response, offset, `blob ${digest}`, signal);
    },
  };
}

/** Nobody signs in there; TLS is as configured for that host. */
async function foreignPlace(services: RegistryServices, text: string): Promise<BlobPlace> {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const found = url === undefined ? [] : await services.findEndpoints(url.host);
  const endpoint = found.find(
    ({ host, base }) => host === url?.host && new URL(base).protocol === url?.protocol,
  );
  return {
    host: url?.host ?? text,
    open: async (offset, signal) => {
      if (url === undefined || endpoint === undefined || url.username !== '') {
        throw new CimletError('access-denied', `the layer's URL ${JSON.stringify(text)} is no https address`);
      }
      const { tls, connectTimeoutMs, headers } = endpoint;
      const all = [...standardHeaders(), ...headers, ...rangeFrom(offset)] as const;
      const response = await services.http.send(
        { method: 'GET', url, headers: all, tls, connectTimeoutMs },
        signal,
      );
      const secrets = headers.map(([, value]) => value);
      return toStream({ ...response, secrets }, offset, `layer from ${url.origin}`, signal);
    },
  };
}
