/** What `get`, `describe` and `events` show: asked of the agent that has the root, or else read from the root itself. */

import { CimletError, isErrorCode } from '../errors.ts';
import { type Item, type Items, itemsOf, pathOf, type Section } from '../server/items.ts';
import type { EventRecord } from '../state/records.ts';
import { type AgentClient, agentOf } from './agent-client.ts';
import type { CliContext } from './context.ts';
import type { GlobalOptions } from './options.ts';
import { type Session, withReader } from './session.ts';

export interface Inventory {
  /** At least what these sections hold. Throws `failed-precondition` for sources when no agent can be asked. */
  list(sections: readonly Section[], signal: AbortSignal): Promise<Items>;
  /** The latest first; of all resources without a key. */
  events(key: string | undefined, signal: AbortSignal): Promise<EventRecord[]>;
}

export async function withInventory<T>(
  context: CliContext,
  options: GlobalOptions,
  use: (inventory: Inventory) => Promise<T>,
): Promise<T> {
  const client = await findAgent(context, options);
  if (client !== undefined) return use(askAgent(client));
  return withReader(context, options, (session) => use(readRoot(session, options.root)));
}

/** Undefined also when the agent is another user's, or hangs: what may be read of its root still can be. */
export async function findAgent(
  context: CliContext,
  options: GlobalOptions,
): Promise<AgentClient | undefined> {
  try {
    return await agentOf(context, options);
  } catch (error) {
    if (isErrorCode(error, 'access-denied', 'busy')) return undefined;
    throw error;
  }
}

function askAgent(client: AgentClient): Inventory {
  const list = async <T>(path: string, signal: AbortSignal) =>
    ((await client.get(path, signal)) as { items: T[] }).items;
  return {
    list: async (sections, signal) => {
      const lists = await Promise.all(sections.map((section) => list<Item>(pathOf(section), signal)));
      const items = lists.flat();
      return {
        resources: items.filter((item) => item.kind !== 'Snapshot' && item.kind !== 'Source'),
        snapshots: items.filter((item) => item.kind === 'Snapshot'),
        sources: items.filter((item) => item.kind === 'Source'),
      };
    },
    events: (key, signal) => list(eventsPath(key), signal),
  };
}

function readRoot({ engine, state }: Session, root: string): Inventory {
  return {
    list: async (sections, signal) => {
      if (sections.includes('Source'))
        throw new CimletError('failed-precondition', `sources are an agent's, and none runs on ${root}`, {
          hint: 'start one with cimlet agent; what was applied: cimlet get all',
        });
      return itemsOf(await engine.status(signal));
    },
    events: async (key) => state.events(key),
  };
}

/** Of the API; of all resources without a key. */
export function eventsPath(key: string | undefined): string {
  return `/api/v1/events${key === undefined ? '' : `?key=${encodeURIComponent(key)}`}`;
}
