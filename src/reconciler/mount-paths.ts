/** Rules for mount points that can be told from their text alone. */

import { posix, win32 } from 'node:path';
import type { HostState } from '../hosts/host.ts';
import type { MountResource, ResourceKey } from '../manifests/resources.ts';
import { compareText } from './canonical.ts';

export type HostKind = HostState['host']['kind'] | 'offline';

/** The path in the one form that can be compared: normalised, without a trailing separator, on Windows without case. */
function comparablePath(path: string, host: HostKind): string {
  const windows = usesWindowsPaths(path, host);
  const normal = (windows ? win32 : posix).normalize(path);
  const bare = normal.length > 1 ? normal.replace(/[\\/]$/, '') : normal;
  return windows ? bare.toLowerCase() : bare;
}

/** The same of a place that may be a utility VM's: paths of its guest are none of the host's. */
export function comparablePlace(
  { path, utilityVM }: { path: string; utilityVM?: string | undefined },
  host: HostKind,
): string {
  if (utilityVM === undefined) return comparablePath(path, host);
  return `in ${utilityVM}: ${comparablePath(path, path.startsWith('/') ? 'embedded' : 'windows')}`;
}

export function describePlace({ path, utilityVM }: { path: string; utilityVM?: string | undefined }): string {
  return utilityVM === undefined ? path : `${path} in utility VM ${utilityVM}`;
}

/** Where a Mount is to be. */
export function placeOf({ spec }: MountResource): { path: string; utilityVM?: string | undefined } {
  return { path: spec.path, utilityVM: spec.isolation?.utilityVM?.id };
}

/** Why nothing can be mounted there on this host, or undefined. */
export function findPathProblem(mount: MountResource, host: HostKind, root: string): string | undefined {
  const { path, utilityVM } = placeOf(mount);
  if (utilityVM !== undefined)
    return posix.isAbsolute(path) || /^[a-zA-Z]:[\\/]/.test(path)
      ? undefined
      : `spec.path ${path} is not an absolute path of the utility VM's guest`;
  const windows = usesWindowsPaths(path, host);
  const absolute = windows ? /^[a-zA-Z]:[\\/]/.test(path) || path.startsWith('\\\\') : posix.isAbsolute(path);
  if (!absolute) return `spec.path ${path} is not an absolute ${windows ? 'Windows' : 'POSIX'} path`;
  if (host === 'offline') return undefined;
  const at = comparablePath(path, host);
  const home = comparablePath(root, host);
  if (at === home || isInside(at, home)) return `spec.path ${path} lies inside the root ${root}`;
  if (isInside(home, at)) return `spec.path ${path} holds the root ${root}`;
  return undefined;
}

/** Mounts whose paths are equal or nested, each with the first other one it collides with. */
export function findPathCollisions(
  mounts: readonly MountResource[],
  host: HostKind,
): Map<ResourceKey, { other: MountResource; nested: boolean }> {
  // Separators sort before everything else, so a path is directly followed by all that lie inside it.
  const sorted = mounts
    .map((mount) => {
      const path = comparablePlace(placeOf(mount), host);
      return { mount, path, order: path.replace(/[\\/]/g, '\u0000') };
    })
    .sort(
      (a, b) => compareText(a.order, b.order) || compareText(a.mount.metadata.name, b.mount.metadata.name),
    );
  const collisions = new Map<ResourceKey, { other: MountResource; nested: boolean }>();
  const note = (mount: MountResource, other: MountResource, nested: boolean) => {
    const key: ResourceKey = `Mount/${mount.metadata.name}`;
    if (!collisions.has(key)) collisions.set(key, { other, nested });
  };
  let outer: (typeof sorted)[number] | undefined;
  for (const entry of sorted) {
    const equal = outer?.path === entry.path;
    if (outer !== undefined && (equal || isInside(entry.path, outer.path))) {
      note(outer.mount, entry.mount, !equal);
      note(entry.mount, outer.mount, !equal);
    } else {
      outer = entry;
    }
  }
  return collisions;
}

/** Whether two comparable places are the same, or one lies inside the other. */
export function overlap(a: string, b: string): boolean {
  return a === b || isInside(a, b) || isInside(b, a);
}

function isInside(path: string, outer: string): boolean {
  const stem = /[\\/]$/.test(outer) ? outer : `${outer}/`;
  return path.startsWith(stem) || path.startsWith(stem.replace(/\/$/, '\\'));
}

function usesWindowsPaths(path: string, host: HostKind): boolean {
  return host === 'windows' || (host === 'offline' && /^([a-zA-Z]:|\\\\)/.test(path));
}
