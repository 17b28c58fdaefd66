/** An agent on the in-memory host that follows a folder, and its API on the folder's socket. */

import { join } from 'node:path';
import { Agent } from '../../src/agent/agent.ts';
import { agentSocket } from '../../src/server/address.ts';
import { AgentServer, type ServerOptions } from '../../src/server/server.ts';
import { createFolderSource } from '../../src/sources/folder-source.ts';
import type { World } from '../reconciler/support.ts';

/**
 * Resolves when its first round is over, with what ends the agent and then its API. `logError` hears what it logs as an
 * error.
 */
export async function serveAgent(
  root: string,
  { engine, state }: Pick<World, 'engine' | 'state'>,
  options: Pick<ServerOptions, 'tcp' | 'hooks'> = {},
  logError: (message: string) => void = () => undefined,
): Promise<() => Promise<void>> {
  const stopping = new AbortController();
  const first = Promise.withResolvers<void>();
  const source = createFolderSource(
    { name: 'here', folder: { path: root, include: ['*.yaml'] } },
    { cacheDirectory: join(root, 'cache'), baseDirectory: root },
  );
  const nothing = () => undefined;
  const error = (_fields: object, message: string) => logError(message);
  const log = { debug: nothing, info: nothing, warn: nothing, error };
  const server = new AgentServer({
    engine,
    state,
    version: '1.2.3',
    socket: agentSocket(root),
    ...options,
    log,
  });
  const agent = new Agent({
    engine,
    state,
    sources: [{ source, id: 'here', prune: true }],
    resyncMs: 60_000,
    largestPrune: 0.5,
    pruneHoldMs: 60_000,
    log,
    onEvent: (event) => server.onEvent(event),
    onPlanned: (planned, running) => server.onPlanned(planned, running),
    onRound: (round) => {
      server.onRound(round);
      first.resolve();
    },
  });
  await server.open(agent);
  const ended = agent.run(stopping.signal);
  await Promise.race([first.promise, ended]);
  return async () => {
    stopping.abort();
    await ended;
    await server.close();
    await source.close();
  };
}
