/** What the API lists: how each list is read, answered and watched. */

import type { Agent } from '../agent/agent.ts';
import type { Engine } from '../reconciler/engine.ts';
import type { State } from '../state/state.ts';
import { type Item, itemsOf, type Section, sourceItem } from './items.ts';
import { shareReads } from './shared-read.ts';
import { type ReadList, WatchedList } from './watch.ts';

export interface ApiList {
  /** The answer to those who don't watch. `key`: of that only. */
  answer(key: string | undefined): Promise<unknown>;
  watched: WatchedList;
  /** Chooses items of the watched list. */
  isOf(id: string, key: string): boolean;
}

/** By the IDs of their operations. Reading ends when the signal aborts. */
export function createLists(
  { engine, state }: { engine: Engine; state: State },
  agent: Agent,
  signal: AbortSignal,
): Record<string, ApiList> {
  const status = shareReads(async () => itemsOf(await engine.status(signal, { isFollowed: true })));
  const section = (kind: Section) =>
    list(async () => {
      const { resources, snapshots } = await status();
      const items = [...resources, ...snapshots].filter((item) => item.kind === kind);
      return new Map(items.map((item) => [itemId(item), item]));
    });
  const plan = shareReads(() => agent.plan(signal));
  return {
    listImages: section('Image'),
    listChains: section('LayerChain'),
    listMounts: section('Mount'),
    listSnapshots: section('Snapshot'),
    listSources: list(
      async () => new Map(agent.sources.statuses().map((source) => [source.name, sourceItem(source)])),
    ),
    listEvents: {
      ...list(
        async () =>
          new Map(
            state
              .events()
              .reverse()
              .map((event) => [eventId(event), event]),
          ),
      ),
      answer: async (key) => ({ items: state.events(key) }),
    },
    getPlan: { ...list(async () => new Map([['plan', await plan()]])), answer: plan },
  };
}

function list(read: ReadList): ApiList {
  return {
    answer: async () => ({ items: [...(await read()).values()] }),
    watched: new WatchedList(read),
    isOf: (id, key) => id.startsWith(`${key}\n`),
  };
}

function itemId(item: Item): string {
  return item.kind === 'Snapshot' ? `${item.status.format}/${item.name}` : item.name;
}

function eventId({ key, type, reason, message }: ReturnType<State['events']>[number]): string {
  return [key, type, reason, message].join('\n');
}
