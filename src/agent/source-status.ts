/** How a source is, as the API and events tell it: conditions as resources have them. */

import { disposition } from '../errors.ts';
import { nextConditions, type Outcome } from '../reconciler/conditions.ts';
import type { SuspensionNote } from '../reconciler/suspension.ts';
import type { Condition } from '../state/records.ts';
import type { Declaration } from './declaration.ts';
import type { Look } from './follow-source.ts';

export interface SourceStatus {
  name: string;
  /** Under which what it declares is recorded. */
  sourceId: string;
  suspended?: SuspensionNote | undefined;
  /** In force; undefined when none is yet. */
  revision?: string | undefined;
  resources: number;
  /** Why the latest revision is not in force, or not all of it. */
  trouble?: { code: string; message: string; hint?: string | undefined } | undefined;
  /** None before the first look. */
  conditions: readonly Condition[];
}

/** Sources have no spec whose generations were counted. */
const GENERATION = 0;

export function sourceStatus(
  source: Pick<SourceStatus, 'name' | 'sourceId' | 'suspended' | 'conditions'>,
  declaration: Declaration | undefined,
  look: Look | undefined,
): SourceStatus {
  const { revision, resources = [] } = declaration ?? {};
  const error = look?.trouble;
  const trouble =
    error === undefined ? undefined : { code: error.code, message: error.message, hint: error.hint };
  return { ...source, revision, resources: resources.length, trouble };
}

/** The reason that a look which found trouble is told with. */
export function reasonOf({ isInForce }: Look): 'PartlyValid' | 'SyncFailed' {
  return isInForce ? 'PartlyValid' : 'SyncFailed';
}

/** The conditions after a look. */
export function conditionsAfter(look: Look, before: readonly Condition[]): Condition[] {
  return nextConditions(before, outcomeOf(look), GENERATION, new Date().toISOString());
}

function outcomeOf(look: Look): Outcome {
  const { trouble, isInForce } = look;
  if (trouble === undefined)
    return { state: 'ready', reason: 'InForce', message: 'the latest revision is in force' };
  const passes = !isInForce && disposition(trouble.code) === 'retry';
  return {
    state: passes ? 'reconciling' : 'stalled',
    reason: reasonOf(look),
    message: trouble.message,
  };
}
