/** `POST /hooks/<source>`: a git server says that something was pushed, and the source looks at once. */

import type { FastifyInstance } from 'fastify';
import type { AgentLog } from '../agent/log.ts';
import { readQuietly, type Secret } from '../manifests/secrets.ts';
import type { GitRef } from '../manifests/types.gen.ts';
import { isAuthenticWebhook, mayConcern, type WebhookProvider } from '../sources/webhooks.ts';
import { readOperations } from './contract.ts';

/** Refused webhooks are logged so often per source, in milliseconds: anybody can send one. */
const TOLD_EVERY_MS = 60_000;

class Refusals {
  readonly #log: AgentLog;
  readonly #toldAt = new Map<string, number>();
  readonly #untold = new Map<string, number>();

  constructor(log: AgentLog) {
    this.#log = log;
  }

  note(source: string, from: string): void {
    const now = performance.now();
    const untold = this.#untold.get(source) ?? 0;
    if (now - (this.#toldAt.get(source) ?? Number.NEGATIVE_INFINITY) < TOLD_EVERY_MS) {
      this.#untold.set(source, untold + 1);
      return;
    }
    this.#toldAt.set(source, now);
    this.#untold.delete(source);
    const more = untold === 0 ? {} : { before: untold };
    this.#log.warn({ source, from, ...more }, 'webhook refused: it is not signed with the secret');
  }
}

/** Who may tell of pushes to a source. */
export interface Hook {
  provider: WebhookProvider;
  secret: Secret;
  /** What the source follows; undefined for the default branch. */
  ref: GitRef | undefined;
}

interface Asked {
  Params: { source: string };
  Body: Buffer | undefined;
}

/** What was pushed is not read from it, so that little is lost by refusing a long one: the next look finds it. */
const LARGEST_BODY = 2 ** 20;

/** What became of a webhook; `ignored` when it tells of another branch or tag. */
export type HookResult = 'accepted' | 'ignored' | 'unsigned' | 'too-long' | 'unknown-source';

export interface HookServices {
  /** Has a source looked at. */
  look(source: string): void;
  log: AgentLog;
  /** `source` is empty for one that takes no webhooks. */
  onHook(source: string, result: HookResult): void;
}

/**
 * Serves `hooks`, by name of their source. Nobody is told why a hook is refused; the log is. One that is sent again has
 * its source look again, no more.
 */
export function addHooks(
  server: FastifyInstance,
  hooks: ReadonlyMap<string, Hook>,
  { look, log, onHook }: HookServices,
): void {
  const refusals = new Refusals(log);
  const { url } = readOperations().find(({ needs }) => needs === 'signature') ?? { url: '' };
  server.register(async (scope) => {
    // The signature is of the bytes as they came.
    scope.removeAllContentTypeParsers();
    scope.addContentTypeParser('*', { parseAs: 'buffer', bodyLimit: LARGEST_BODY }, (_request, body, done) =>
      done(null, body),
    );
    scope.addHook<Asked>('onError', async ({ params: { source } }, _reply, error) => {
      if (error.code === 'FST_ERR_CTP_BODY_TOO_LARGE') onHook(hooks.has(source) ? source : '', 'too-long');
    });
    scope.post<Asked>(url, async (request, reply) => {
      const { source } = request.params;
      const hook = hooks.get(source);
      if (hook === undefined) {
        onHook('', 'unknown-source');
        return reply.code(404).send({ code: 'not-found', message: 'no source takes webhooks here' });
      }
      const webhook = { headers: request.headers, body: request.body ?? Buffer.alloc(0) };
      if (!isAuthenticWebhook(hook.provider, await readQuietly(hook.secret, 'the secret'), webhook)) {
        onHook(source, 'unsigned');
        refusals.note(source, request.ip);
        return reply.code(401).send({ code: 'access-denied', message: 'not accepted' });
      }
      const isHeeded = mayConcern(webhook, hook.ref);
      onHook(source, isHeeded ? 'accepted' : 'ignored');
      if (isHeeded) look(source);
      log.info({ source, from: request.ip, isHeeded }, 'webhook');
      return reply.code(202).send({ isHeeded });
    });
  });
}
