/**
 * The compute systems that run on this machine, and what of ours they say they use. HCS tells every system's ID, type and
 * owner, but of storage only what its older schema has (MappedVirtualDisk); its documented property types name none
 * (learn.microsoft.com/virtualization/api/hcs/schemareference#System_PropertyType). So a container may say nothing, and is
 * then taken for a user of whatever could be its own.
 */

import { CimletError, describeError, isErrorCode } from '../../errors.ts';
import type { ComputeCore } from '../../native/windows/computecore.ts';
import type { EffectContext, ObservedComputeSystem } from '../host.ts';
import { foldPath, isWithin } from './mount-paths.ts';

export interface ComputeSystem extends Omit<ObservedComputeSystem, 'uses'> {
  /** Differs each time that a system of this ID starts. */
  runtimeId?: string | undefined;
  /** Every path in what HCS says of it, folded. */
  paths: string[];
}

/** What is known of them: all, or why they aren't known. */
export type ComputeSystemsSeen =
  | { systems: ComputeSystem[]; unknown?: undefined }
  | { systems: []; unknown: string };

/** What somebody may use: folders and files of ours, and volumes as `\\?\Volume{guid}\`. */
export type Places = readonly string[];

const QUERY = { PropertyTypes: ['MappedVirtualDisk'] };

/** Looks only. Without the privilege, the DLL or the service, they are unknown. */
export async function seeComputeSystems(
  computecore: ComputeCore,
  signal?: AbortSignal,
): Promise<ComputeSystemsSeen> {
  try {
    const listed = await computecore.enumerateComputeSystems(null, signal);
    if (!Array.isArray(listed))
      throw new CimletError('corrupt', 'list compute systems: the answer is no list');
    const systems: ComputeSystem[] = [];
    for (const basic of listed.map(propertiesOf)) {
      const system = await look(computecore, basic, signal);
      if (system !== undefined) systems.push(system);
    }
    return { systems };
  } catch (error) {
    if (!(error instanceof CimletError) || isErrorCode(error, 'cancelled')) throw error;
    return { systems: [], unknown: describeError(error) };
  }
}

/** A system without what it says of its storage; undefined when it doesn't run. */
export async function findComputeSystem(
  computecore: ComputeCore,
  id: string,
): Promise<ComputeSystem | undefined> {
  try {
    const properties = await computecore.withComputeSystem(id, (system) =>
      computecore.getComputeSystemProperties(system, id, null),
    );
    const found = systemOf({ ...propertiesOf(properties), Id: id });
    return found.state === 'Stopped' ? undefined : found;
  } catch (error) {
    if (isErrorCode(error, 'not-found')) return undefined;
    throw error;
  }
}

/** The systems that say they use one of the places. */
export function usersOf<S extends Pick<ComputeSystem, 'paths'>>(systems: readonly S[], places: Places): S[] {
  const folded = places.map(foldPlace);
  return systems.filter(({ paths }) => paths.some((path) => folded.some((place) => isWithin(path, place))));
}

/** Why a place may be in use, as a sentence without a full stop; undefined when nothing that runs can use it. */
export function possibleUse(seen: ComputeSystemsSeen, places: Places): string | undefined {
  if (seen.unknown !== undefined) return `which compute systems run is unknown (${seen.unknown})`;
  const [user] = usersOf(seen.systems, places);
  if (user !== undefined) return `${nameOf(user)} uses it`;
  // A VM's disks can't be attached to the host, and containers in a VM have its disks.
  const silent = seen.systems.filter(
    ({ type, hostedBy, paths }) => type === 'Container' && hostedBy === undefined && paths.length === 0,
  );
  return silent.length === 0 ? undefined : `${silent.map(nameOf).join(' and ')} may use it`;
}

/** Throws `busy` when a running system says that it uses one of the places; warns when that can't be known. */
export async function refuseInUse(
  computecore: ComputeCore,
  places: Places,
  operation: string,
  context: EffectContext,
): Promise<void> {
  const seen = await seeComputeSystems(computecore, context.signal);
  if (seen.unknown !== undefined)
    context.warn?.(`${operation}: cannot see which compute systems use it: ${seen.unknown}`);
  const [user] = usersOf(seen.systems, places);
  if (user === undefined) return;
  throw new CimletError('busy', `${operation}: ${nameOf(user)} uses it`, {
    hint: 'stop that compute system first',
  });
}

export function nameOf({ id, owner }: Pick<ComputeSystem, 'id' | 'owner'>): string {
  return `compute system ${id}${owner === undefined ? '' : ` of ${owner}`}`;
}

async function look(
  computecore: ComputeCore,
  basic: Record<string, unknown>,
  signal: AbortSignal | undefined,
): Promise<ComputeSystem | undefined> {
  const { id } = systemOf(basic);
  try {
    const more = await computecore.withComputeSystem(id, (system) =>
      computecore.getComputeSystemProperties(system, id, QUERY, signal),
    );
    return systemOf({ ...basic, ...propertiesOf(more) });
  } catch (error) {
    if (isErrorCode(error, 'cancelled')) throw error;
    // It has ended meanwhile.
    if (isErrorCode(error, 'not-found')) return undefined;
    // Systems of the newer schema refuse the question.
    if (error instanceof CimletError) return systemOf(basic);
    throw error;
  }
}

function systemOf(properties: Record<string, unknown>): ComputeSystem {
  const text = (name: string) => {
    const value = properties[name];
    return typeof value === 'string' && value !== '' ? value : undefined;
  };
  const id = text('Id');
  if (id === undefined) throw new CimletError('corrupt', 'list compute systems: one has no Id');
  return {
    id,
    type: text('SystemType') ?? 'Unknown',
    owner: text('Owner'),
    state: text('State'),
    guestOs: text('RuntimeOsType') === 'Unknown' ? undefined : text('RuntimeOsType'),
    hostedBy: text('HostingSystemId'),
    runtimeId: text('RuntimeId'),
    paths: [...new Set(pathsIn(properties))],
  };
}

function propertiesOf(value: unknown): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value))
    return value as Record<string, unknown>;
  throw new CimletError('corrupt', 'the properties of a compute system are no JSON object');
}

function* pathsIn(value: unknown): Generator<string> {
  if (typeof value === 'string') {
    if (/^(?:\\\\\?\\|[a-z]:[\\/])/i.test(value)) yield foldPlace(value);
  } else if (typeof value === 'object' && value !== null)
    for (const part of Object.values(value)) yield* pathsIn(part);
}

/** Volumes by their GUID paths, all else without `\\?\`; no trailing backslash. */
function foldPlace(place: string): string {
  const plain = place.replace(/^\\\\\?\\(?=[a-z]:)/i, '').replace(/[\\/]$/, '');
  return plain.startsWith('\\\\?\\') ? plain.toLowerCase() : foldPath(plain);
}
