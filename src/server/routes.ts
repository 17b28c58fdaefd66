/** What the API answers: a handler for each operation of schemas/openapi.json, which also says what it takes. */

import { Readable } from 'node:stream';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Agent } from '../agent/agent.ts';
import { CimletError } from '../errors.ts';
import type { Suspension } from '../state/records.ts';
import { requireResource, type State } from '../state/state.ts';
import { readOperations } from './contract.ts';
import { sourceItem } from './items.ts';
import type { ApiList } from './lists.ts';
import type { Metrics } from './metrics.ts';

type Handler = (request: FastifyRequest, reply: FastifyReply) => unknown;

/** By the IDs of their operations. */
export type Handlers = Record<string, Handler>;

/** Who watches at the same time, at most. */
const MOST_WATCHERS = 100;

export interface RouteServices {
  agent: Agent;
  state: State;
  version: string;
  metrics: Metrics;
  lists: Record<string, ApiList>;
  /** Ends what is being answered. */
  signal: AbortSignal;
}

export function createHandlers(services: RouteServices): Handlers {
  const { agent, metrics, lists, version } = services;
  return {
    getHealth: () => ({ status: 'ok', version }),
    getReadiness: (_request, reply) => {
      if (agent.isReady) return { status: 'ready' };
      return reply.code(503).send({ status: 'starting' });
    },
    getMetrics: async (_request, reply) => reply.type(metrics.contentType).send(await metrics.render()),
    ...listHandlers(lists, services.signal),
    ...commandHandlers(services),
  };
}

/** Adds those that need nothing, or a token. Throws for an operation without a handler. */
export function addOperations(
  server: FastifyInstance,
  handlers: Handlers,
  needing: 'nothing' | 'token',
): void {
  for (const { id, method, url, needs, input } of readOperations()) {
    if (needs !== needing) continue;
    const handler = handlers[id];
    if (handler === undefined) throw new Error(`nothing handles ${id} of the API`);
    // Only an async handler's errors are fastify's to answer.
    server.route({ method, url, schema: input, handler: async (request, reply) => handler(request, reply) });
  }
}

interface ListQuery {
  watch?: '' | 'true' | 'false';
  key?: string;
}

function listHandlers(lists: Record<string, ApiList>, signal: AbortSignal): Handlers {
  let watchers = 0;
  const watch = async (
    { watched, isOf }: ApiList,
    key: string | undefined,
    request: FastifyRequest,
    reply: FastifyReply,
  ) => {
    if (watchers >= MOST_WATCHERS)
      throw new CimletError('busy', `${MOST_WATCHERS} others watch already`, { hint: 'ask again later' });
    if (reply.raw.destroyed) throw new CimletError('cancelled', 'who asked to watch has gone');
    // Tied by hand: on Node 22 a signal that lives long keeps something of each `AbortSignal.any` made of it.
    const gone = new AbortController();
    const end = () => gone.abort();
    signal.addEventListener('abort', end, { once: true });
    if (signal.aborted) end();
    const leave = watched.enter();
    watchers++;
    reply.raw.once('close', () => {
      signal.removeEventListener('abort', end);
      watchers--;
      leave();
      end();
    });
    await watched.refresh();
    const lastEventId = request.headers['last-event-id']?.toString();
    const isWanted = key === undefined ? undefined : (id: string) => isOf(id, key);
    const events = watched.follow({ lastEventId, isWanted }, gone.signal);
    return reply
      .type('text/event-stream')
      .header('cache-control', 'no-store')
      .send(Readable.from(events, { objectMode: false }));
  };
  return Object.fromEntries(
    Object.entries(lists).map(([id, list]): [string, Handler] => [
      id,
      (request, reply) => {
        const { watch: wanted = 'false', key } = request.query as ListQuery;
        return wanted === 'false' ? list.answer(key) : watch(list, key, request, reply);
      },
    ]),
  );
}

function commandHandlers({ agent, state, signal }: RouteServices): Handlers {
  const sources = () => agent.sources.statuses().map(sourceItem);
  const requireKnown = (key: Suspension['key']) => {
    if (!sources().some(({ kind, name }) => key === `${kind}/${name}`)) requireResource(state, key);
  };
  return {
    look: async ({ body }) => {
      const { source } = body as { source?: string };
      if (source !== undefined) requireKnown(`Source/${source}`);
      await agent.sources.lookNow(source, signal);
      return {};
    },
    reconcile: ({ body }) => {
      const { key } = body as { key?: Suspension['key'] };
      if (key !== undefined) requireKnown(key);
      agent.reconcile(key);
      return {};
    },
    suspend: ({ body }) => {
      const suspension = body as Omit<Suspension, 'since'>;
      requireKnown(suspension.key);
      state.suspend(suspension);
      agent.reconcile(suspension.key);
      return {};
    },
    resume: ({ body }) => {
      const { key, by = 'somebody' } = body as { key: Suspension['key']; by?: string };
      const wasSuspended = state.resume(key, by);
      agent.reconcile(key);
      return { wasSuspended };
    },
  };
}
