/**
 * Pulling by the OCI distribution API: tags to digests, documents, and blobs from any byte on, through the endpoints
 * that are configured for a registry. Source: OCI distribution-spec v1.1, spec.md.
 */

import { CimletError, isErrorCode } from '../../errors.ts';
import type { Digest } from '../../hosts/host.ts';
import { DigestCheck, digestOf, isDigest } from '../digest.ts';
import { DOCUMENT_LIMIT, parseIndex } from '../documents.ts';
import type { Descriptor, TaggedDescriptor } from '../types.ts';
import { type Answer, readAnswer, refuse, tooLong } from './answers.ts';
import { type BlobPlace, rangeFrom, toStream } from './blob-stream.ts';
import type { Endpoint } from './endpoints.ts';
import { type RegistryServices, requestTo, sendSigned, standardHeaders } from './exchange.ts';
import { firstOf } from './first-of.ts';
import { discard, type HttpRequest } from './http.ts';
import { guessMediaType, isKnownDocument } from './media-types.ts';
import { nextPage } from './pages.ts';
import type { ImageReference } from './reference.ts';
import { WrongBytesError, withRetries } from './retry.ts';
import { parseTags } from './tag-list.ts';

export type ForeignLayers = 'registry-first' | 'urls-first' | 'never';

const ACCEPT = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.v2+json',
].join(', ');

const TAGS_PER_PAGE = 1000;
const MOST_TAGS = 100_000;
const MOST_REFERRERS = 10_000;
const MOST_PAGES = 1000;

export class RegistryClient {
  readonly #reference: ImageReference;
  readonly #services: RegistryServices;

  constructor(reference: ImageReference, services: RegistryServices) {
    this.#reference = reference;
    this.#services = services;
  }

  /**
   * What the reference leads to now; `known` spares the server an answer in full. `once`: whoever doesn't answer isn't
   * asked again. Throws `not-found`, `access-denied`, `unavailable`, `corrupt`.
   */
  resolve(
    signal: AbortSignal,
    { known, once = false }: { known?: TaggedDescriptor | undefined; once?: boolean } = {},
  ): Promise<TaggedDescriptor> {
    const { digest, tag } = this.#reference;
    return this.#fromAny('canResolve', { signal, once }, async (endpoint) => {
      const path = `manifests/${digest ?? tag}`;
      const found =
        (await this.#head(endpoint, path, known, signal)) ?? (await this.#describe(endpoint, path, signal));
      if (digest !== undefined && found.digest !== digest) {
        throw new CimletError(
          'corrupt',
          `${endpoint.host} has ${found.digest} at ${this.#reference.canonical}`,
        );
      }
      return found;
    });
  }

  /** All tags of the repository, in the server's order. Throws as `resolve` does. */
  listTags(signal: AbortSignal, { once = false }: { once?: boolean } = {}): Promise<string[]> {
    const { registry, repository } = this.#reference;
    const operation = `list tags of ${registry}/${repository}`;
    return this.#fromAny('canResolve', { signal, once }, async (endpoint) => {
      const first = this.#request(endpoint, 'GET', `tags/list?n=${TAGS_PER_PAGE}`, []);
      const tags: string[] = [];
      for await (const page of this.#pages(endpoint, first, operation, signal)) {
        tags.push(...parseTags(page, `tag list of ${registry}/${repository}`));
        if (tags.length > MOST_TAGS)
          throw new CimletError('unsupported-host', `${operation}: more than ${MOST_TAGS} tags`, {
            hint: 'name a tag instead of spec.policy',
          });
      }
      return tags;
    });
  }

  /** A manifest, index or configuration by its digest, which is checked. */
  readDocument(descriptor: Descriptor, signal: AbortSignal): Promise<Buffer> {
    const { digest, mediaType } = descriptor;
    const path = isKnownDocument(mediaType) ? `manifests/${digest}` : `blobs/${digest}`;
    return this.#fromAny('canPull', { signal }, async (endpoint) => {
      const { bytes } = await this.#read(endpoint, path, signal);
      const check = new DigestCheck(digest);
      check.update(bytes);
      const found = check.mismatch();
      if (found === undefined) return bytes;
      throw new WrongBytesError(`fetch ${digest}: ${endpoint.host} sends other bytes, with digest ${found}`);
    });
  }

  /** What names an image of this repository as its subject; undefined where the registry can't say. */
  async referrers(digest: Digest, signal: AbortSignal): Promise<Descriptor[] | undefined> {
    const operation = `list referrers of ${digest} in ${this.#reference.registry}/${this.#reference.repository}`;
    const asked = this.#fromAny('canResolve', { signal }, async (endpoint) => {
      const request = this.#request(endpoint, 'GET', `referrers/${digest}`, [['accept', ACCEPT]]);
      const found: Descriptor[] = [];
      // A mirror may not know, and the registry itself all the same.
      for await (const page of this.#pages(endpoint, request, operation, signal)) {
        found.push(...parseIndex(page, operation).manifests);
        if (found.length > MOST_REFERRERS)
          throw new CimletError('unsupported-host', `${operation}: more than ${MOST_REFERRERS} of them`, {
            hint: 'remove signatures and attestations that nobody needs from the registry',
          });
      }
      return found;
    });
    try {
      return await asked;
    } catch (error) {
      if (isErrorCode(error, 'not-found')) return undefined;
      throw error;
    }
  }

  /** What a list is answered with, page by page. Throws as `refuse` does, and for a list without end. */
  async *#pages(
    endpoint: Endpoint,
    first: HttpRequest,
    operation: string,
    signal: AbortSignal,
  ): AsyncGenerator<Buffer, void, undefined> {
    let url: URL | undefined = first.url;
    for (let pages = 0; url !== undefined; pages++) {
      if (pages === MOST_PAGES)
        throw new CimletError('unsupported-host', `${operation}: more than ${MOST_PAGES} pages`, {
          hint: 'ask whoever runs the registry: its list has no end',
        });
      const response = await this.#send(endpoint, { ...first, url }, signal);
      if (response.status !== 200) throw await refuse(response, operation, signal);
      yield await readAnswer(response, operation, DOCUMENT_LIMIT, signal);
      // Not where a redirect led to: credentials are sent along.
      url = nextPage(url, response.headers, operation);
    }
  }

  /** Where a layer can be fetched from, in the order to try. */
  async placesOf(layer: Descriptor, policy: ForeignLayers): Promise<BlobPlace[]> {
    const endpoints = await this.#services.findEndpoints(this.#reference.registry);
    const own = endpoints
      .filter(({ canPull }) => canPull)
      .map((endpoint) => this.#placeAt(endpoint, layer.digest));
    if (policy === 'never') return own;
    const foreign = await Promise.all(layer.urls.map((url) => this.#foreignPlace(url)));
    return policy === 'urls-first' ? [...foreign, ...own] : [...own, ...foreign];
  }

  #placeAt(endpoint: Endpoint, digest: Digest): BlobPlace {
    return {
      host: endpoint.host,
      open: async (offset, signal) => {
        const request = this.#request(endpoint, 'GET', `blobs/${digest}`, rangeFrom(offset));
        return toStream(await this.#send(endpoint, request, signal), offset, `blob ${digest}`, signal);
      },
    };
  }

  /** Nobody signs in there; TLS is as configured for that host. */
  async #foreignPlace(text: string): Promise<BlobPlace> {
    const url = URL.canParse(text) ? new URL(text) : undefined;
    const found = url === undefined ? [] : await this.#services.findEndpoints(url.host);
    const endpoint = found.find(
      ({ host, base }) => host === url?.host && new URL(base).protocol === url?.protocol,
    );
    return {
      host: url?.host ?? text,
      open: async (offset, signal) => {
        if (url === undefined || endpoint === undefined || url.username !== '') {
          throw new CimletError(
            'access-denied',
            `the layer's URL ${JSON.stringify(text)} is no https address`,
          );
        }
        const { tls, connectTimeoutMs, headers } = endpoint;
        const all = [...standardHeaders(), ...headers, ...rangeFrom(offset)] as const;
        const response = await this.#services.http.send(
          { method: 'GET', url, headers: all, tls, connectTimeoutMs },
          signal,
        );
        const secrets = headers.map(([, value]) => value);
        return toStream({ ...response, secrets }, offset, `layer from ${url.origin}`, signal);
      },
    };
  }

  /** Undefined when the server doesn't answer HEAD with all that is needed. */
  async #head(
    endpoint: Endpoint,
    path: string,
    known: TaggedDescriptor | undefined,
    signal: AbortSignal,
  ): Promise<TaggedDescriptor | undefined> {
    const etag = known?.etag?.host === endpoint.host ? known.etag.value : undefined;
    const condition: [string, string][] = etag === undefined ? [] : [['if-none-match', etag]];
    const request = this.#request(endpoint, 'HEAD', path, [['accept', ACCEPT], ...condition]);
    const response = await this.#send(endpoint, request, signal);
    await discard(response);
    if (response.status === 304 && etag !== undefined) return known;
    if (response.status === 405 || response.status === 501) return undefined;
    if (response.status !== 200) throw await refuse(response, this.#operation(path), signal);
    const { 'docker-content-digest': digest, 'content-length': length, etag: newEtag } = response.headers;
    const mediaType = contentTypeOf(response);
    const size = Number(length);
    if (!isDigest(digest) || !isKnownDocument(mediaType) || !Number.isSafeInteger(size) || size <= 0)
      return undefined;
    if (size > DOCUMENT_LIMIT) throw tooLong(this.#operation(path), DOCUMENT_LIMIT);
    return {
      mediaType,
      digest,
      size,
      urls: [],
      annotations: {},
      ...(typeof newEtag === 'string' ? { etag: { host: endpoint.host, value: newEtag } } : {}),
    };
  }

  async #describe(endpoint: Endpoint, path: string, signal: AbortSignal): Promise<TaggedDescriptor> {
    const { bytes, mediaType } = await this.#read(endpoint, path, signal);
    return {
      mediaType: isKnownDocument(mediaType) ? mediaType : guessMediaType(bytes, mediaType),
      digest: digestOf(bytes),
      size: bytes.length,
      urls: [],
      annotations: {},
    };
  }

  async #read(
    endpoint: Endpoint,
    path: string,
    signal: AbortSignal,
  ): Promise<{ bytes: Buffer; mediaType: string }> {
    const request = this.#request(endpoint, 'GET', path, [
      ['accept', path.startsWith('manifests/') ? ACCEPT : '*/*'],
    ]);
    const response = await this.#send(endpoint, request, signal);
    const operation = this.#operation(path);
    if (response.status !== 200) throw await refuse(response, operation, signal);
    const bytes = await readAnswer(response, operation, DOCUMENT_LIMIT, signal);
    return { bytes, mediaType: contentTypeOf(response) };
  }

  #send(endpoint: Endpoint, request: HttpRequest, signal: AbortSignal): Promise<Answer> {
    const scope = `repository:${this.#reference.repository}:pull`;
    return sendSigned(this.#services, { endpoint, scope, request }, signal);
  }

  #request(
    endpoint: Endpoint,
    method: 'GET' | 'HEAD',
    path: string,
    headers: readonly (readonly [string, string])[],
  ): HttpRequest {
    return requestTo(endpoint, method, `${this.#reference.repository}/${path}`, headers);
  }

  #operation(path: string): string {
    const { canonical, registry, repository } = this.#reference;
    return path.startsWith('manifests/') && !path.includes('sha')
      ? `resolve ${canonical}`
      : `fetch ${path.replace(/^.*\//, '')} of ${registry}/${repository}`;
  }

  /** The first endpoint that answers; all of them again, with pauses, while the last one may recover. */
  async #fromAny<T>(
    capability: 'canPull' | 'canResolve',
    { signal, once = false }: { signal: AbortSignal; once?: boolean },
    ask: (endpoint: Endpoint) => Promise<T>,
  ): Promise<T> {
    const { registry } = this.#reference;
    const endpoints = (await this.#services.findEndpoints(registry)).filter(
      (endpoint) => endpoint[capability],
    );
    const { backoff } = this.#services;
    return withRetries(once ? { ...backoff, retries: 0 } : backoff, signal, () =>
      firstOf(endpoints, ask, `no host is configured that may serve ${registry}`),
    );
  }
}

function contentTypeOf({ headers }: Answer): string {
  const [type = ''] = String(headers['content-type'] ?? '').split(';');
  return type.trim().toLowerCase();
}
