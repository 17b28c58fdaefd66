/** Which of all that `get` and `describe` know was asked for by kind and name. */

import { existsSync } from 'node:fs';
import { CimletError } from '../errors.ts';
import { type Item, type Items, SECTIONS, type Section } from '../server/items.ts';

export interface Wanted {
  sections: readonly Section[];
  name: string | undefined;
}

/** `images`, `image app`, `image/app`, `all`, ... Throws for a kind that isn't one. */
export function parseWanted(word: string, name: string | undefined): Wanted {
  const slash = word.indexOf('/');
  if (slash >= 0 && name === undefined) return parseWanted(word.slice(0, slash), word.slice(slash + 1));
  const singular = word.toLowerCase().replace(/s$/, '');
  if (singular === 'all') return { sections: SECTIONS, name };
  const section = [...SECTIONS, 'Source' as const].find(
    (each) => each.toLowerCase() === (singular === 'chain' ? 'layerchain' : singular),
  );
  if (section !== undefined) return { sections: [section], name };
  throw new CimletError('not-found', `there is no kind called ${word}`, {
    hint: 'ask for images, chains, mounts, snapshots, sources or all',
  });
}

/** Throws `not-found` when a name was given and nothing has it. Snapshots go by any beginning of their chain ID. */
export function selectItems(items: Items, wanted: Wanted): Items {
  const isWanted = (item: Item) => matchesWanted(item, wanted);
  const resources = items.resources.filter(isWanted);
  const snapshots = items.snapshots.filter(isWanted);
  const sources = items.sources.filter(isWanted);
  const { sections, name } = wanted;
  if (name !== undefined && resources.length + snapshots.length + sources.length === 0) {
    const kinds = sections.join(', ');
    if (kinds === 'Source') {
      const hint = 'cimlet get sources lists those of the agent';
      throw new CimletError('not-found', `the agent follows no source named ${name}`, { hint });
    }
    throw new CimletError('not-found', `no ${kinds} named ${name} was applied to this root`, {
      hint: 'cimlet get all lists what was applied; --root chooses another root',
    });
  }
  return { resources, snapshots, sources };
}

export function matchesWanted(item: Item, { sections, name }: Wanted): boolean {
  if (!sections.includes(item.kind)) return false;
  if (name === undefined || item.name === name) return true;
  return item.kind === 'Snapshot' && (item.name.startsWith(name) || item.name.startsWith(`sha256:${name}`));
}

/** A root that isn't there is most often a slip. */
export function nothingFoundIn(root: string): string {
  return existsSync(root)
    ? `Nothing found in ${root}.`
    : `Nothing found in ${root}, which isn't there yet; --root names another.`;
}
