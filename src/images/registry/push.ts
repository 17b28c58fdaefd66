/** Pushing by the OCI distribution API: blobs first, then what names them. Source: OCI distribution-spec v1.1, "Push". */

import { Readable } from 'node:stream';
import { CimletError } from '../../errors.ts';
import type { ImageContent } from '../content.ts';
import { readBlob } from '../image-archive.ts';
import { type Answer, refuse } from './answers.ts';
import type { Endpoint } from './endpoints.ts';
import { type RegistryServices, requestTo, sendSigned } from './exchange.ts';
import { discard, type HttpRequest } from './http.ts';
import type { ImageReference } from './reference.ts';
import { withRetries } from './retry.ts';

export interface PushOptions {
  reference: ImageReference;
  content: ImageContent;
  services: RegistryServices;
  signal: AbortSignal;
  /** Told of bytes sent, and of those that the registry has already. */
  onBytes: (bytes: number) => void;
}

/** Pushes to the registry itself, not to its mirrors. Throws `access-denied`, `unavailable`, `corrupt`, `cancelled`. */
export async function pushImage(options: PushOptions): Promise<void> {
  const push = new Push(options, await pushEndpoint(options));
  for (const blob of options.content.blobs) await push.blob(blob);
  for (const document of options.content.documents) await push.document(document);
}

async function pushEndpoint({ reference: { registry }, services }: PushOptions): Promise<Endpoint> {
  const endpoint = (await services.findEndpoints(registry)).filter(({ canPush }) => canPush).at(-1);
  if (endpoint !== undefined) return endpoint;
  throw new CimletError(
    'failed-precondition',
    `no host is configured that may be pushed to for ${registry}`,
    {
      hint: 'check capabilities in hosts.toml',
    },
  );
}

class Push {
  readonly #options: PushOptions;
  readonly #endpoint: Endpoint;

  constructor(options: PushOptions, endpoint: Endpoint) {
    this.#options = options;
    this.#endpoint = endpoint;
  }

  async blob({ descriptor, range }: ImageContent['blobs'][number]): Promise<void> {
    const { digest, size } = descriptor;
    const { onBytes, signal } = this.#options;
    const operation = `push blob ${digest} to ${this.#name}`;
    await this.#retried(async () => {
      if (await this.#has(digest, operation)) return;
      const started = await this.#send(this.#request('POST', 'blobs/uploads/', [['content-length', '0']]));
      if (started.status !== 202) throw await refuse(started, operation, signal);
      await discard(started);
      const upload = this.#uploadTo(started, digest, operation);
      const stored = await this.#send({
        ...upload,
        headers: [
          ...upload.headers,
          ['content-type', 'application/octet-stream'],
          ['content-length', String(size)],
        ],
        body: () => Readable.from(readBlob(descriptor, range, signal)),
      });
      if (stored.status !== 201) throw await refuse(stored, operation, signal);
      await discard(stored);
    });
    onBytes(size);
  }

  async document({ descriptor, bytes }: ImageContent['documents'][number]): Promise<void> {
    const { reference, content, signal } = this.#options;
    const isTop = descriptor.digest === content.top.digest;
    const name = isTop ? (reference.tag ?? descriptor.digest) : descriptor.digest;
    const operation = `push ${name} to ${this.#name}`;
    await this.#retried(async () => {
      const answer = await this.#send({
        ...this.#request('PUT', `manifests/${name}`, [['content-type', descriptor.mediaType]]),
        body: bytes,
      });
      if (answer.status !== 201) throw await refuse(answer, operation, signal);
      await discard(answer);
    });
  }

  get #name(): string {
    const { registry, repository } = this.#options.reference;
    return `${registry}/${repository}`;
  }

  async #has(digest: string, operation: string): Promise<boolean> {
    const answer = await this.#send(this.#request('HEAD', `blobs/${digest}`, []));
    await discard(answer);
    if (answer.status === 200) return true;
    if (answer.status === 404) return false;
    throw await refuse(answer, operation, this.#options.signal);
  }

  /** Registries may have uploads sent elsewhere; nobody is signed in there. */
  #uploadTo({ headers: { location } }: Answer, digest: string, operation: string): HttpRequest {
    const request = this.#request('PUT', '', []);
    if (typeof location !== 'string' || !URL.canParse(location, request.url.href))
      throw new CimletError('unavailable', `${operation}: the registry doesn't say where to`);
    const url = new URL(location, request.url);
    if (url.protocol !== 'https:' && url.origin !== request.url.origin)
      throw new CimletError(
        'access-denied',
        `${operation}: it is to go to ${url.origin}, which is not https`,
      );
    url.searchParams.set('digest', digest);
    if (url.origin === request.url.origin) return { ...request, url };
    return { ...request, url, headers: [], tls: { ...request.tls, clients: [] } };
  }

  #request(method: HttpRequest['method'], path: string, headers: [string, string][]): HttpRequest {
    return requestTo(this.#endpoint, method, `${this.#options.reference.repository}/${path}`, headers);
  }

  async #send(request: HttpRequest): Promise<Answer> {
    const { services, signal, reference } = this.#options;
    const isOwn = request.url.origin === new URL(this.#endpoint.base).origin;
    if (!isOwn) return { ...(await services.http.send(request, signal)), secrets: [] };
    const scope = `repository:${reference.repository}:pull,push`;
    return sendSigned(services, { endpoint: this.#endpoint, scope, request }, signal);
  }

  #retried<T>(attempt: () => Promise<T>): Promise<T> {
    return withRetries(this.#options.services.backoff, this.#options.signal, attempt);
  }
}
