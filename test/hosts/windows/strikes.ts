/** Which calls of effects are struck, and how: what killing.ts then does. */

import type { Called, Stage } from './doomed.ts';
import type { Family } from './effect.ts';

/** A call of an effect, and what becomes of it. */
export interface Strike {
  call: string;
  /** Which of the effect's calls of that function. */
  nth: number;
  /** It fails, or the process is killed in it. */
  with: 'failure' | 'kill before' | 'kill after';
}

export interface Known extends Stage {
  /** What it calls that may leave something, in order. */
  calls: (Called & { nth: number })[];
}

/** Says how the calls of effects are struck. */
export type Choice = (effects: readonly Known[]) => Map<Known, Strike[]>;

/**
 * Of each function in each kind of effect the first call fails, and the last one is a process's last. Layers are written in each format; in
 * all else formats take turns, since a process dies on each one's root at once. Linux layers need few calls: there the first is one's last, too.
 */
export const eachFunction: Choice = (effects) => {
  const choice = new Map(effects.map((effect): [Known, Strike[]] => [effect, []]));
  const burden = new Map<Family, number>();
  const burdenOf = ({ effect }: { effect: Known }) => burden.get(effect.family) ?? 0;
  const candidates = Map.groupBy(
    effects.flatMap((effect) =>
      [...new Set(effect.calls.map(({ call }) => call))].map((call) => ({ effect, call })),
    ),
    ({ effect, call }) => `${kindOf(effect)} ${call}`,
  );
  for (const same of [...candidates.values()].sort((a, b) => a.length - b.length)) {
    const [chosen] = same.sort((a, b) => burdenOf(a) - burdenOf(b));
    if (chosen === undefined) continue;
    const { effect, call } = chosen;
    const kills = killsAtEnds(effect, call);
    choice.get(effect)?.push(...failureAtEnds(effect, call), ...kills);
    burden.set(effect.family, burdenOf(chosen) + kills.length);
  }
  return choice;
};

function killsAtEnds({ family, calls }: Known, call: string): Strike[] {
  const [first, last] = endsOf(calls, call);
  const nths = family === 'LCOW' ? new Set([first, last]) : [last];
  return [...nths].map((nth) => ({ call, nth, with: 'kill after' }));
}

function failureAtEnds({ family, effect, calls }: Known, call: string): Strike[] {
  return COMPOSITE.test(effect) ? [] : failure(family, call, endsOf(calls, call)[0]);
}

/** Of what other effects are made of, where the same calls fail. */
const COMPOSITE = /^(unpack the third|replace under a mount|commit) /;

function kindOf({ family, effect }: Stage): string {
  const kind = effect.slice(0, -family.length);
  return kind.startsWith('unpack') ? effect.replace('sealed ', '') : kind;
}

/** Every single one fails, and is the last; processes are killed before the first of each function, too. `which` names effects. */
export function eachCall(which: RegExp): Choice {
  return (effects) =>
    new Map(
      effects
        .filter(({ effect }) => which.test(effect))
        .map((effect): [Known, Strike[]] => [
          effect,
          effect.calls.flatMap((call) => allStrikes(effect, call)),
        ]),
    );
}

function allStrikes({ family, calls }: Known, { call, nth }: Known['calls'][number]): Strike[] {
  const [first] = endsOf(calls, call);
  const before: Strike[] = nth === first ? [{ call, nth, with: 'kill before' }] : [];
  return [...failure(family, call, nth), ...before, { call, nth, with: 'kill after' }];
}

/**
 * Windows detaches a disk with its handle as well, the double doesn't; and what a VM refuses it is given otherwise: each change failing is
 * in vm-attachments.test.ts.
 */
function failure(family: Family, call: string, nth: number): Strike[] {
  return family === 'LCOW' || call === 'DetachVirtualDisk' ? [] : [{ call, nth, with: 'failure' }];
}

function endsOf(calls: Known['calls'], call: string): [first: number, last: number] {
  const nths = calls.filter((each) => each.call === call).map(({ nth }) => nth);
  return [nths[0] ?? 0, nths.at(-1) ?? 0];
}
