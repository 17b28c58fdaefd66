/** The last steps of planning: a stable order and the figures. */

import type { ResourceKey } from '../manifests/resources.ts';
import { compareText } from './canonical.ts';
import type { Situation } from './situation.ts';
import type { ActionKind, Plan, PlannedAction } from './types.ts';

const RANKS: Record<ActionKind, number> = { Image: 0, Snapshot: 1, Merge: 2, LayerChain: 3, Mount: 4 };

/** Actions with what they wait for first, otherwise by kind and name. `cyclic` are those that wait for themselves. */
export function orderActions(actions: readonly PlannedAction[]): {
  order: PlannedAction[];
  cyclic: PlannedAction[];
} {
  const byId = new Map(actions.map((action) => [action.id, action]));
  const waiting = new Map<string, number>();
  const dependants = new Map<string, PlannedAction[]>();
  for (const action of actions) {
    const dependencies = action.dependsOn.filter((id) => byId.has(id));
    waiting.set(action.id, dependencies.length);
    for (const id of dependencies) {
      const known = dependants.get(id);
      if (known === undefined) dependants.set(id, [action]);
      else known.push(action);
    }
  }
  const depth = new Map<string, number>();
  const reached = actions.filter(({ id }) => waiting.get(id) === 0);
  for (const { id } of reached) depth.set(id, 0);
  for (let index = 0; index < reached.length; index++) {
    const done = reached[index];
    if (done === undefined) break;
    const below = depth.get(done.id) ?? 0;
    for (const dependant of dependants.get(done.id) ?? []) {
      depth.set(dependant.id, Math.max(depth.get(dependant.id) ?? 0, below + 1));
      const left = (waiting.get(dependant.id) ?? 0) - 1;
      waiting.set(dependant.id, left);
      if (left === 0) reached.push(dependant);
    }
  }
  const order = reached.sort(
    (a, b) =>
      (depth.get(a.id) ?? 0) - (depth.get(b.id) ?? 0) ||
      RANKS[a.kind] - RANKS[b.kind] ||
      compareText(a.id, b.id),
  );
  return { order, cyclic: actions.filter(({ id }) => (waiting.get(id) ?? 0) > 0) };
}

export interface PlanParts {
  mode: Plan['mode'];
  revision: string;
  situation: Situation;
  actions: PlannedAction[];
  blocked: Plan['blocked'];
  notes: Plan['notes'];
  /** Every resource the plan is about. */
  resources: readonly ResourceKey[];
}

export function finishPlan(parts: PlanParts): Plan {
  const { order, cyclic } = orderActions(parts.actions);
  if (cyclic.length > 0)
    throw new Error(`actions wait for one another: ${cyclic.map(({ id }) => id).join(', ')}`);
  const summary: Plan['summary'] = {
    create: 0,
    change: 0,
    replace: 0,
    repair: 0,
    delete: 0,
    drift: 0,
    blocked: parts.blocked.length,
    unchanged: 0,
    bytes: 0,
  };
  const touched = new Set<string>(parts.blocked.map(({ key }) => key));
  for (const action of order) {
    summary[action.verb]++;
    if (action.drift) summary.drift++;
    if (action.verb !== 'delete') summary.bytes += action.bytes;
    touched.add(action.id);
  }
  summary.unchanged = parts.resources.filter((key) => !touched.has(key)).length;
  return {
    formatVersion: 1,
    revision: parts.revision,
    mode: parts.mode,
    host: { kind: parts.situation.host, root: parts.situation.root },
    actions: order,
    blocked: [...parts.blocked].sort((a, b) => compareText(a.key, b.key)),
    notes: [...parts.notes, ...noteLeftovers(parts.situation)].sort(
      (a, b) => compareText(a.key ?? '', b.key ?? '') || compareText(a.message, b.message),
    ),
    summary,
  };
}

function noteLeftovers({ observed }: Situation): Plan['notes'] {
  const count = observed?.leftovers.length ?? 0;
  if (count === 0) return [];
  const what = count === 1 ? 'leftover of an interrupted run is' : 'leftovers of interrupted runs are';
  return [{ message: `${count} ${what} removed by apply` }];
}
