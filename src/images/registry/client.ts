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
import type { Endpoint } from './endpoints.ts';
import { type RegistryServices, requestTo, sendSigned } from './exchange.ts';
import { firstOf, noHost } from './first-of.ts';
import { discard, type HttpRequest } from './http.ts';
import { guessMediaType, isKnownDocument, KNOWN_DOCUMENTS, OCI_INDEX } from './media-types.ts';
import { nextPage } from './pages.ts';
import type { ImageReference } from './reference.ts';
import { WrongBytesError, withRetries } from './retry.ts';
import { parseTags } from './tag-list.ts';

/** What several hosts have, and why others don't say. */
export interface Everywhere<T> {
  found: T[];
  failures: CimletError[];
}

const ACCEPT = KNOWN_DOCUMENTS.join(', ');

const TAGS_PER_PAGE = 1000;
const MOST_TAGS = 100_000;
const MOST_REFERRERS = 10_000;
const MOST_PAGES = 1000;
/** As go-containerregistry takes them. */
const NO_SUCH_API = [400, 404, 405, 406, 501];

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
    return this.#fromAny('canResolve', { signal, once }, (endpoint) =>
      this.#resolveAt(endpoint, known, signal),
    );
  }

  async #resolveAt(
    endpoint: Endpoint,
    known: TaggedDescriptor | undefined,
    signal: AbortSignal,
  ): Promise<TaggedDescriptor> {
    const { digest, tag, canonical } = this.#reference;
    const path = `manifests/${digest ?? tag}`;
    const found =
      (await this.#head(endpoint, path, known, signal)) ?? (await this.#describe(endpoint, path, signal));
    if (digest === undefined || found.digest === digest) return found;
    throw new CimletError('corrupt', `${endpoint.host} has ${found.digest} at ${canonical}`);
  }

  /** All tags of the repository, in the server's order. Throws as `resolve` does. */
  listTags(signal: AbortSignal, { once = false }: { once?: boolean } = {}): Promise<string[]> {
    const { registry, repository } = this.#reference;
    const operation = `list tags of ${registry}/${repository}`;
    return this.#fromAny('canResolve', { signal, once }, async (endpoint) => {
      const first = this.#request(endpoint, 'GET', `tags/list?n=${TAGS_PER_PAGE}`, []);
      const tags: string[] = [];
      for await (const page of this.#pages(endpoint, first, operation, signal)) {
        const bytes = await readPage(page, operation, signal);
        tags.push(...parseTags(bytes, `tag list of ${registry}/${repository}`));
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

  /**
   * What names an image of this repository as its subject, by every host that can say: a mirror that knows of nothing says
   * nothing of the registry. `knowAll`: none of them answers as one without such an API. Throws as `resolve` does.
   */
  async referrers(
    digest: Digest,
    signal: AbortSignal,
  ): Promise<Everywhere<Descriptor> & { knowAll: boolean }> {
    const operation = `list referrers of ${digest} in ${this.#reference.registry}/${this.#reference.repository}`;
    let knowAll = true;
    const found = await this.#everywhere(signal, async (endpoint) => {
      const request = this.#request(endpoint, 'GET', `referrers/${digest}`, [['accept', ACCEPT]]);
      const referrers: Descriptor[] = [];
      for await (const page of this.#pages(endpoint, request, operation, signal)) {
        if (isNoReferrersApi(page)) {
          await discard(page);
          knowAll = false;
          return [];
        }
        referrers.push(...parseIndex(await readPage(page, operation, signal), operation).manifests);
        if (referrers.length > MOST_REFERRERS)
          throw new CimletError('unsupported-host', `${operation}: more than ${MOST_REFERRERS} of them`, {
            hint: 'remove signatures and attestations that nobody needs from the registry',
          });
      }
      return referrers;
    });
    return { ...found, knowAll };
  }

  /** What the reference leads to at every host that has it. */
  resolveEverywhere(signal: AbortSignal): Promise<Everywhere<Descriptor>> {
    return this.#everywhere(signal, async (endpoint) => {
      try {
        return [await this.#resolveAt(endpoint, undefined, signal)];
      } catch (error) {
        if (isErrorCode(error, 'not-found')) return [];
        throw error;
      }
    });
  }

  /** What a list is answered with, page by page, each to be read before the next. Throws for a list without end. */
  async *#pages(
    endpoint: Endpoint,
    first: HttpRequest,
    operation: string,
    signal: AbortSignal,
  ): AsyncGenerator<Answer, void, undefined> {
    let url: URL | undefined = first.url;
    for (let pages = 0; url !== undefined; pages++) {
      if (pages === MOST_PAGES)
        throw new CimletError('unsupported-host', `${operation}: more than ${MOST_PAGES} pages`, {
          hint: 'ask whoever runs the registry: its list has no end',
        });
      const response = await this.#send(endpoint, { ...first, url }, signal);
      yield response;
      // Not where a redirect led to: credentials are sent along.
      url = nextPage(url, response.headers, operation);
    }
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

  /**
   * What all endpoints answer together. The registry itself is asked again, with pauses, should it fail; its mirrors are
   * not. Throws when none answers.
   */
  async #everywhere<T>(
    signal: AbortSignal,
    ask: (endpoint: Endpoint) => Promise<T[]>,
  ): Promise<Everywhere<T>> {
    const { backoff } = this.#services;
    const endpoints = await this.#endpoints('canResolve');
    const answers = await Promise.allSettled(
      endpoints.map((endpoint) => {
        const isLast = endpoint === endpoints.at(-1);
        return withRetries(isLast ? backoff : { ...backoff, retries: 0 }, signal, () => ask(endpoint));
      }),
    );
    const failures = answers.flatMap((answer) => (answer.status === 'rejected' ? [answer.reason] : []));
    const strange = failures.find((error) => !(error instanceof CimletError) || error.code === 'cancelled');
    if (strange !== undefined) throw strange;
    if (failures.length === answers.length) throw failures.at(-1) ?? noHost(noHostFor(this.#reference));
    const found = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
    return { found, failures };
  }

  /** The first endpoint that answers; all of them again, with pauses, while the last one may recover. */
  async #fromAny<T>(
    capability: 'canPull' | 'canResolve',
    { signal, once = false }: { signal: AbortSignal; once?: boolean },
    ask: (endpoint: Endpoint) => Promise<T>,
  ): Promise<T> {
    const endpoints = await this.#endpoints(capability);
    const { backoff } = this.#services;
    return withRetries(once ? { ...backoff, retries: 0 } : backoff, signal, () =>
      firstOf(endpoints, ask, noHostFor(this.#reference)),
    );
  }

  async #endpoints(capability: 'canPull' | 'canResolve'): Promise<Endpoint[]> {
    const endpoints = await this.#services.findEndpoints(this.#reference.registry);
    return endpoints.filter((endpoint) => endpoint[capability]);
  }
}

function noHostFor({ registry }: ImageReference): string {
  return `no host is configured that may serve ${registry}`;
}

/** Servers without this API answer in many ways, some of them with a page of their own. */
function isNoReferrersApi(page: Answer): boolean {
  return page.status === 200 ? contentTypeOf(page) !== OCI_INDEX : NO_SUCH_API.includes(page.status);
}

async function readPage(page: Answer, operation: string, signal: AbortSignal): Promise<Buffer> {
  if (page.status !== 200) throw await refuse(page, operation, signal);
  return readAnswer(page, operation, DOCUMENT_LIMIT, signal);
}

function contentTypeOf({ headers }: Answer): string {
  const [type = ''] = String(headers['content-type'] ?? '').split(';');
  return type.trim().toLowerCase();
}
