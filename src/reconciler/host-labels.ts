/** Which resources are for this host: by its labels, which `spec.hosts.matchLabels` selects by. */

import type { Resource } from '../manifests/resources.ts';

export type HostLabels = Readonly<Record<string, string>>;

/** Those without `hosts` are for every host. */
export function splitByHost(
  resources: readonly Resource[],
  labels: HostLabels,
): { here: Resource[]; elsewhere: Resource[] } {
  const isHere = ({ spec }: Resource) => carries(labels, spec.hosts?.matchLabels ?? {});
  return { here: resources.filter(isHere), elsewhere: resources.filter((resource) => !isHere(resource)) };
}

/** Whether all that is wanted is among the labels. */
export function carries(labels: HostLabels, wanted: HostLabels): boolean {
  return Object.entries(wanted).every(
    ([name, value]) => Object.hasOwn(labels, name) && labels[name] === value,
  );
}

/** Why a resource that is for others isn't for this one. */
export function explainElsewhere({ spec }: Resource): string {
  const wanted = Object.entries(spec.hosts?.matchLabels ?? {}).map(([name, value]) => `${name}=${value}`);
  return `not for this host: spec.hosts wants ${wanted.join(', ')}`;
}
