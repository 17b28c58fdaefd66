/** Which resources may not be on this host as they are declared, as far as declarations and records tell. */

import { isAbsolute } from 'node:path';
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
 * What is new, changed, moved with its files, in trouble, suspended, no longer declared, or declared otherwise than validly.
 * What the host or a registry changed by itself shows only when everything is looked at. `directories`: what paths in each
 * manifest were relative to when it was.
 */
export function findUnsettled(
  sources: readonly DeclaredSource[],
  records: readonly ResourceRecord[],
  directories: ReadonlyMap<ResourceKey, string>,
): Set<ResourceKey> {
  const known = new Map(records.map((record) => [keyOfRecord(record), record]));
  const gone = new Map(known);
  const unsettled = new Set<ResourceKey>();
  for (const { id, resources, invalid = [] } of sources) {
    for (const resource of resources) {
      const key = resourceKey(resource);
      gone.delete(key);
      const isMoved = namesFiles(resource) && directories.get(key) !== resource.baseDirectory;
      if (isMoved || resource.spec.suspend || !isSettled(known.get(key), resource, id)) unsettled.add(key);
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

/** What relative paths of each resource are relative to. */
export function directoriesOf(sources: readonly DeclaredSource[]): Map<ResourceKey, string> {
  const resources = sources.flatMap((source) => source.resources);
  return new Map(resources.map((resource) => [resourceKey(resource), resource.baseDirectory]));
}

/** Whether what it is made of or checked with lies where its manifest says relative to itself. */
function namesFiles(resource: Resource): boolean {
  if (resource.kind === 'Mount') return false;
  const paths =
    resource.kind === 'Image'
      ? [resource.spec.source.ociLayout, resource.spec.source.dockerArchive]
      : resource.spec.layers.map(({ archive }) => archive);
  const isVerified = resource.kind === 'Image' && resource.spec.verify !== undefined;
  return isVerified || paths.some((path) => path !== undefined && !isAbsolute(path));
}
