/** What is left as it is on purpose: why, and who said so. */

import { type ResourceKey, resourceKey } from '../manifests/resources.ts';
import type { Suspension } from '../manifests/types.gen.ts';
import type { Obstacle } from './desired.ts';
import type { DeclaredSource } from './types.ts';

export interface SuspensionNote {
  reason?: string | undefined;
  by?: string | undefined;
  /** ISO 8601. Of what was suspended by a command. */
  since?: string | undefined;
}

/** What a `suspend` of a manifest or of cimlet.yaml says; undefined when it suspends nothing. */
export function suspensionNote(suspend: boolean | Suspension | undefined): SuspensionNote | undefined {
  if (suspend === undefined || suspend === false) return undefined;
  return suspend === true ? {} : suspend;
}

/** The same of a recorded spec. */
export function suspensionOfSpec(spec: unknown): SuspensionNote | undefined {
  return suspensionNote((spec as { suspend?: boolean | Suspension } | undefined)?.suspend);
}

/** `suspended by ann since 2026-01-01T00:00:00.000Z: maintenance`. */
export function describeSuspension({ reason, by, since }: SuspensionNote): string {
  const words = ['suspended', by && `by ${by}`, since && `since ${since}`].filter(Boolean).join(' ');
  return reason === undefined ? words : `${words}: ${reason}`;
}

/** Why nothing is done to what suspended sources declare. */
export function obstaclesOfSources(sources: readonly DeclaredSource[]): [ResourceKey, Obstacle][] {
  return sources.flatMap(({ suspended, resources }) => {
    if (suspended === undefined) return [];
    const obstacle = { code: 'suspended', message: `its source is ${describeSuspension(suspended)}` };
    return resources.map((resource): [ResourceKey, Obstacle] => [resourceKey(resource), obstacle]);
  });
}
