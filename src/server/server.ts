/**
 * The agent's API: health, metrics, what is there, and what it may be told. On a unix socket (a named pipe on Windows)
 * that only this user can open, and on a TCP address when configured, for those who know the token. Health is told to
 * anybody there, as kubelets expect; webhooks carry their own proof.
 */

import { createHash, timingSafeEqual } from 'node:crypto';
import { chmod, rm } from 'node:fs/promises';
import { PassThrough } from 'node:stream';
import { type FastifyInstance, type FastifyReply, fastify } from 'fastify';
import type { Agent, Round } from '../agent/agent.ts';
import type { AgentLog } from '../agent/log.ts';
import { CimletError, classify, describeError, disposition } from '../errors.ts';
import type { ResourceKey } from '../manifests/resources.ts';
import { readQuietly, type Secret } from '../manifests/secrets.ts';
import type { Engine } from '../reconciler/engine.ts';
import type { ExecutionEvent } from '../reconciler/types.ts';
import { requireResource, type State } from '../state/state.ts';
import { addHooks, type Hook } from './hooks.ts';
import { itemsOf, SECTIONS } from './items.ts';
import { createMetrics } from './metrics.ts';

export interface ServerOptions {
  engine: Engine;
  state: State;
  version: string;
  /** Path of the socket, or name of the pipe. One that is there is a dead agent's: the root's lock is ours. */
  socket: string;
  /** Served besides, to whoever sends `Authorization: Bearer <token>`. */
  tcp?: { host: string; port: number; token: Secret } | undefined;
  /** By name of their source. */
  hooks?: ReadonlyMap<string, Hook> | undefined;
  log: AgentLog;
}

/** What watchers are told. */
export type Notice =
  | { type: 'round'; durationMs: number; actions: number; error?: string | undefined }
  | { type: ExecutionEvent['type']; action: string; message?: string | undefined };

const RESOURCE_KEY = { type: 'string', pattern: '^(Image|LayerChain|Mount)/.+$' };

/** For a request to come in whole. */
const REQUEST_TIMEOUT_MS = 30_000;

/** Bytes that a watcher may leave unread before it is cut off. */
const MOST_UNREAD = 2 ** 20;

export class AgentServer {
  readonly #options: ServerOptions;
  readonly #watchers = new Set<PassThrough>();
  readonly #closing = new AbortController();
  readonly #servers: FastifyInstance[] = [];
  readonly #metrics;
  #agent: Agent | undefined;

  constructor(options: ServerOptions) {
    this.#options = options;
    this.#metrics = createMetrics(options.state, () => this.#agent?.sourceStatuses() ?? []);
  }

  /** Given to the agent as its `onEvent`. */
  onEvent(event: ExecutionEvent): void {
    this.#metrics.onEvent(event);
    if (event.type === 'action.progressed') return;
    const message = 'error' in event ? event.error.message : 'message' in event ? event.message : undefined;
    this.#tell({ type: event.type, action: event.action.id, message });
  }

  /** Given to the agent as its `onRound`. */
  onRound(round: Round): void {
    this.#metrics.onRound(round);
    const { durationMs, plan, error } = round;
    this.#tell({ type: 'round', durationMs, actions: plan?.actions.length ?? 0, error: error?.message });
  }

  /** Listens from now on. Throws when an address can't be had; then it listens nowhere. */
  async open(agent: Agent): Promise<void> {
    this.#agent = agent;
    const { socket, tcp } = this.#options;
    try {
      if (socket.startsWith('\\\\'))
        await this.#serve(undefined, (server) => server.listen({ path: socket }));
      else await this.#servePrivately(socket);
      if (tcp !== undefined) await this.#serveOverTcp(tcp);
    } catch (error) {
      await this.close();
      throw classify(error, 'open the API of the agent');
    }
  }

  /** Of the TCP address, the one chosen when it was to be any. */
  get port(): number | undefined {
    const address = this.#servers.at(-1)?.server.address();
    return typeof address === 'object' ? address?.port : undefined;
  }

  async close(): Promise<void> {
    this.#closing.abort();
    for (const watcher of this.#watchers) watcher.end();
    this.#watchers.clear();
    await Promise.all(this.#servers.map((server) => server.close()));
  }

  /** Nobody else may connect, also not before the mode of the socket is set. */
  async #servePrivately(socket: string): Promise<void> {
    await rm(socket, { force: true });
    const mask = process.umask(0o077);
    try {
      await this.#serve(undefined, (server) => server.listen({ path: socket }));
    } finally {
      process.umask(mask);
    }
    await chmod(socket, 0o600);
  }

  async #serveOverTcp({ host, port, token }: NonNullable<ServerOptions['tcp']>): Promise<void> {
    try {
      await this.#serve(token, (server) => server.listen({ host, port }));
    } catch (error) {
      const hint = 'choose another listen.address in cimlet.yaml, or stop what listens there';
      throw classify(error, `listen on ${host}:${port}`, hint);
    }
  }

  async #serve(
    token: Secret | undefined,
    listen: (server: FastifyInstance) => Promise<unknown>,
  ): Promise<void> {
    const server = fastify({
      logger: false,
      forceCloseConnections: true,
      requestTimeout: REQUEST_TIMEOUT_MS,
    });
    const { hooks = new Map<string, Hook>(), log } = this.#options;
    this.#servers.push(server);
    server.setErrorHandler((error, { method, url }, reply) => {
      const { statusCode: status } = replyError(error, reply);
      const { cause } = error as Error;
      if (status >= 500) log.error({ method, url, status, cause: String(cause ?? '') }, describeError(error));
      return reply;
    });
    this.#addHealth(server);
    addHooks(server, hooks, (source) => this.#running().look(source), log);
    server.register(async (scope) => {
      if (token !== undefined) requireToken(scope, token);
      this.#addRoutes(scope);
    });
    await listen(server);
  }

  #tell(notice: Notice): void {
    for (const watcher of this.#watchers) {
      if (watcher.writableLength + watcher.readableLength > MOST_UNREAD) watcher.destroy();
      else watcher.write(`data: ${JSON.stringify(notice)}\n\n`);
    }
  }

  #running(): Agent {
    if (this.#agent === undefined) throw new Error('the API was opened without an agent');
    return this.#agent;
  }

  /** Says nothing that a stranger may not know. */
  #addHealth(server: FastifyInstance): void {
    server.get('/healthz', async () => ({ status: 'ok', version: this.#options.version }));
    server.get('/readyz', async (_request, reply) => {
      if (this.#running().isReady) return { status: 'ready' };
      return reply.code(503).send({ status: 'starting' });
    });
  }

  #addRoutes(server: FastifyInstance): void {
    const { engine, state } = this.#options;
    server.get('/metrics', async (_request, reply) =>
      reply.type(this.#metrics.contentType).send(await this.#metrics.render()),
    );
    for (const [path, section] of Object.entries(SECTIONS)) {
      server.get(`/api/v1/${path}`, async () => {
        const { resources, snapshots } = itemsOf(await engine.status(this.#closing.signal));
        return { items: [...resources, ...snapshots].filter(({ kind }) => kind === section) };
      });
    }
    server.get('/api/v1/sources', async () => ({ items: this.#running().sourceStatuses() }));
    server.get('/api/v1/plan', async () => this.#running().plan(this.#closing.signal));
    server.get<{ Querystring: { key?: string } }>(
      '/api/v1/events',
      { schema: { querystring: { type: 'object', properties: { key: { type: 'string' } } } } },
      async ({ query }) => ({ items: state.events(query.key) }),
    );
    server.get('/api/v1/watch', async (_request, reply) => {
      // Listening has begun when the headers are there: nothing is missed between a look and the watch.
      const watcher = new PassThrough();
      this.#watchers.add(watcher);
      watcher.once('close', () => this.#watchers.delete(watcher));
      watcher.write(': watching\n\n');
      return reply.type('text/event-stream').send(watcher);
    });
    this.#addCommands(server);
  }

  #addCommands(server: FastifyInstance): void {
    const { state } = this.#options;
    const body = (required: string[], more: object = {}) => ({
      schema: {
        body: {
          type: 'object',
          required,
          additionalProperties: false,
          properties: { key: RESOURCE_KEY, ...more },
        },
      },
    });
    server.post<{ Body: { key?: ResourceKey } }>('/api/v1/reconcile', body([]), async ({ body: { key } }) => {
      if (key !== undefined) requireResource(state, key);
      this.#running().reconcile(key);
      return {};
    });
    const text = { type: 'string', minLength: 1, maxLength: 1024 };
    server.post<{ Body: { key: ResourceKey; reason: string; by: string } }>(
      '/api/v1/suspend',
      body(['key', 'reason', 'by'], { reason: text, by: text }),
      async ({ body: suspension }) => {
        requireResource(state, suspension.key);
        state.suspend(suspension);
        this.#running().reconcile(suspension.key);
        return {};
      },
    );
    server.post<{ Body: { key: ResourceKey } }>(
      '/api/v1/resume',
      body(['key']),
      async ({ body: { key } }) => {
        const wasSuspended = state.resume(key);
        this.#running().reconcile(key);
        return { wasSuspended };
      },
    );
  }
}

/** Digests are compared, which have one length. */
function requireToken(server: FastifyInstance, token: Secret): void {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  server.addHook('onRequest', async ({ headers }, reply) => {
    const expected = digest(`Bearer ${await readQuietly(token, 'the token')}`);
    if (timingSafeEqual(digest(headers.authorization ?? ''), expected)) return;
    await reply
      .code(401)
      .header('www-authenticate', 'Bearer')
      .send({ code: 'access-denied', message: 'no valid token' });
  });
}

function replyError(error: unknown, reply: FastifyReply): FastifyReply {
  if (error instanceof CimletError) {
    const { code, message, hint } = error;
    const status = code === 'not-found' ? 404 : disposition(code) === 'stall' ? 400 : 503;
    return reply.code(status).send({ code, message, hint });
  }
  const { statusCode = 500, message } = error as { statusCode?: number; message: string };
  return reply.code(statusCode).send({ code: statusCode < 500 ? 'invalid-request' : 'internal', message });
}
