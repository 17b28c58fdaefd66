/** Which of all that `get` and `describe` know was asked for by kind and name. */

import { CimletError } from '../errors.ts';
import type { Kind } from '../manifests/resources.ts';
import type { ResourceStatus, SnapshotStatus, Status } from '../reconciler/status.ts';

export type Section = Kind | 'Snapshot';

export const SECTIONS: readonly Section[] = ['Image', 'LayerChain', 'Mount', 'Snapshot'];

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
  const section = SECTIONS.find(
    (each) => each.toLowerCase() === (singular === 'chain' ? 'layerchain' : singular),
  );
  if (section !== undefined) return { sections: [section], name };
  throw new CimletError('not-found', `there is no kind called ${word}`, {
    hint: 'ask for images, chains, mounts, snapshots or all',
  });
}

export interface Found {
  resources: ResourceStatus[];
  snapshots: SnapshotStatus[];
}

/** Throws `not-found` when a name was given and nothing has it. Snapshots go by any beginning of their chain ID. */
export function selectStatus(status: Status, { sections, name }: Wanted): Found {
  const resources = status.resources.filter(
    (each) => sections.includes(each.kind) && (name === undefined || each.name === name),
  );
  const snapshots = status.snapshots.filter(
    ({ chainId }) =>
      sections.includes('Snapshot') &&
      (name === undefined || chainId.startsWith(name) || chainId.startsWith(`sha256:${name}`)),
  );
  if (name !== undefined && resources.length === 0 && snapshots.length === 0) {
    throw new CimletError('not-found', `no ${sections.join(', ')} named ${name} was applied to this root`, {
      hint: 'cimlet get all lists what was applied; --root chooses another root',
    });
  }
  return { resources, snapshots };
}

export interface Summary {
  ready: 'True' | 'False' | 'Unknown';
  reason: string;
  message: string;
}

/** One word and one sentence for all conditions: what stalls says most, then what is going on, then what is ready. */
export function summariseResource({ conditions }: ResourceStatus): Summary {
  const find = (type: string) => conditions.find((each) => each.type === type);
  const ready = find('Ready');
  const telling = ['Stalled', 'Reconciling'].map(find).find((each) => each?.status === 'True') ?? ready;
  return {
    ready: ready?.status ?? 'Unknown',
    reason: telling?.reason ?? 'Pending',
    message: telling?.message ?? 'recorded, not applied yet',
  };
}

const SNAPSHOT_REASONS: Record<SnapshotStatus['state'], string> = {
  committed: 'Committed',
  intended: 'Interrupted',
  removing: 'Removing',
  missing: 'Missing',
  damaged: 'Damaged',
  unrecorded: 'Unrecorded',
};

export function summariseSnapshot({ state, faults }: SnapshotStatus): Summary {
  const ready = state === 'committed' ? 'True' : state === 'unrecorded' ? 'Unknown' : 'False';
  return { ready, reason: SNAPSHOT_REASONS[state], message: faults[0]?.message ?? '' };
}

/** As JSON and YAML show it. */
export function resourceData(resource: ResourceStatus) {
  const { kind, name, spec, generation, appliedRevision, conditions, facts, drift, mounted } = resource;
  const status = {
    ...summariseResource(resource),
    generation,
    lastAppliedRevision: appliedRevision,
    conditions,
    ...facts,
    drift,
    mounted,
    createdAt: resource.createdAt,
    updatedAt: resource.updatedAt,
  };
  return { kind, name, spec, status };
}

export function snapshotData(snapshot: SnapshotStatus) {
  return {
    kind: 'Snapshot',
    name: snapshot.chainId,
    status: { ...summariseSnapshot(snapshot), ...snapshot },
  };
}
