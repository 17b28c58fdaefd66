/**
 * The agent's API: health, metrics, what is there, and what it may be told. On a unix socket (a named pipe on Windows)
 * that only this user can open, and on a TCP address when configured, for those who know the token. Health is told to
 * anybody there, as kubelets expect; webhooks carry their own proof.
 */

import { createHash, timingSafeEqual } from 'node:crypto';
import { chmod, rm } from 'node:fs/promises';
import { type FastifyInstance, type FastifyReply, fastify } from 'fastify';
import type { Agent, Round } from '../agent/agent.ts';
import type { AgentLog } from '../agent/log.ts';
import type { Told } from '../agent/notifications/notifier.ts';
import { CimletError, classify, describeError, disposition } from '../errors.ts';
import { readQuietly, type Secret } from '../manifests/secrets.ts';
import type { Engine, Planned } from '../reconciler/engine.ts';
import type { ExecutionEvent } from '../reconciler/types.ts';
import type { State } from '../state/state.ts';
import { addHooks, type Hook } from './hooks.ts';
import { createLists } from './lists.ts';
import { createMetrics } from './metrics.ts';
import { Refresher } from './refresher.ts';
import { addOperations, createHandlers, type Handlers } from './routes.ts';

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

/** For a request to come in whole. */
const REQUEST_TIMEOUT_MS = 30_000;
/** Over TCP at the same time: watchers, scrapers, probes and webhooks are fewer. */
const MOST_CONNECTIONS = 256;

export class AgentServer {
  readonly #options: ServerOptions;
  readonly #closing = new AbortController();
  readonly #servers: FastifyInstance[] = [];
  readonly #metrics;
  #agent: Agent | undefined;
  #handlers: Handlers = {};
  #refresher: Refresher | undefined;

  constructor(options: ServerOptions) {
    this.#options = options;
    this.#metrics = createMetrics(options.state, () => this.#agent?.sources.statuses() ?? []);
  }

  /** Given to the agent as its `onEvent`. */
  onEvent(event: ExecutionEvent): void {
    this.#metrics.onEvent(event);
    if (event.type !== 'action.progressed') this.#refresher?.changed();
  }

  /** Given to the agent as its `onPlanned`. */
  onPlanned(planned: Planned, running: readonly string[]): void {
    this.#metrics.onPlanned(planned, running);
  }

  /** Given to the agent as its `onRound`. */
  onRound(round: Round): void {
    this.#metrics.onRound(round);
    this.#refresher?.changed();
  }

  /** Given to the notifier as its `onTold`. */
  onTold(told: Told): void {
    this.#metrics.onTold(told);
  }

  /** Listens from now on. Throws when an address can't be had; then it listens nowhere. */
  async open(agent: Agent): Promise<void> {
    this.#agent = agent;
    const { engine, state, version, socket, tcp, log } = this.#options;
    const { signal } = this.#closing;
    const lists = createLists({ engine, state }, agent, signal);
    this.#handlers = createHandlers({ agent, state, version, metrics: this.#metrics, lists, signal });
    this.#refresher = new Refresher(
      Object.values(lists).map(({ watched }) => watched),
      (error) => log.warn({}, `a watched list can't be read: ${describeError(error)}`),
    );
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
    await this.#refresher?.close();
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
    addOperations(server, this.#handlers, 'nothing');
    const look = (source: string) => this.#running().sources.look(source);
    addHooks(server, hooks, { look, log, onHook: this.#metrics.onHook });
    server.register(async (scope) => {
      if (token !== undefined) requireToken(scope, token);
      addOperations(scope, this.#handlers, 'token');
    });
    if (token !== undefined) server.server.maxConnections = MOST_CONNECTIONS;
    await listen(server);
  }

  #running(): Agent {
    if (this.#agent === undefined) throw new Error('the API was opened without an agent');
    return this.#agent;
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
