/** Which resources may not be on this host as they are declared, as far as declarations and records tell. */

import { type Resource, type ResourceKey, resourceKey } from '../manifests/resources.ts';
import type { ResourceRecord } from '../state/records.ts';
import { keyOfRecord } from './plan-removals.ts';
import { intentDigest } from './situation.ts';
import type { DeclaredSource } from './types.ts';

/** Whether it was applied as this source declares it now, and is well since. */
export function isSettled(
  record: ResourceRecord | undefined,
  resource: Resource,
  sourceId: string,
): record is ResourceRecord {
  if (record === undefined || record.sourceId !== sourceId) return false;
  const digest = intentDigest(resource);
  return (
    record.specDigest === digest &&
    record.appliedDigest === digest &&
    record.conditions.some(({ type, status }) => type === 'Ready' && status === 'True')
  );
}

/**
 * What is new, changed, in trouble, no longer declared, or declared otherwise than validly. What the host or a registry
 * changed by itself shows only when everything is looked at.
 */
export function findUnsettled(
  sources: readonly DeclaredSource[],
  records: readonly ResourceRecord[],
): Set<ResourceKey> {
  const known = new Map(records.map((record) => [keyOfRecord(record), record]));
  const gone = new Map(known);
  const unsettled = new Set<ResourceKey>();
  for (const { id, resources, invalid = [] } of sources) {
    for (const resource of resources) {
      const key = resourceKey(resource);
      gone.delete(key);
      if (!isSettled(known.get(key), resource, id)) unsettled.add(key);
    }
    for (const { key } of invalid) {
      gone.delete(key);
      unsettled.add(key);
    }
  }
  const followed = new Set(sources.map(({ id }) => id));
  for (const [key, { sourceId }] of gone) if (followed.has(sourceId)) unsettled.add(key);
  return unsettled;
}
