/** What has to happen to a Mount: compared with what is at its path, what was recorded, and what the host can do. */

import type { MountRequest, ObservedMount, PathState, ViewKind, VolumeGuid } from '../hosts/host.ts';
import { mountVolumeGuid } from '../hosts/identity.ts';
import { type MountResource, type ResourceKey, resourceKey } from '../manifests/resources.ts';
import type { ResourceRecord } from '../state/records.ts';
import type { DesiredChain } from './desired.ts';
import { comparablePlace, describePlace } from './mount-paths.ts';
import { findVmObstacle } from './plan-utility-vm.ts';
import { intentDigest, mergeId, type Situation, snapshotId } from './situation.ts';
import type { Blocked, Reason, Verb } from './types.ts';
import { findWritableObstacle, mountSnapshotKey } from './writable-mounts.ts';

export interface MountChange {
  verb: Verb;
  drift: boolean;
  reasons: Reason[];
  request: MountRequest;
  /** Taken away first: its own earlier view. */
  replaces?: VolumeGuid;
  /** The Mount whose view has to leave the path first. */
  occupant?: ResourceKey;
  note?: string;
}

export type MountVerdict =
  | { kind: 'unchanged' }
  | { kind: 'blocked'; obstacle: Pick<Blocked, 'code' | 'message' | 'hint'> }
  | { kind: 'reported'; message: string }
  | ({ kind: 'change' } & MountChange);

export interface MountQuestion {
  mount: MountResource;
  chain: DesiredChain;
  situation: Situation;
  sourceId: string;
  /** The Mount whose view is going to leave its path, if it is. */
  leaverOf: (volumeGuid: VolumeGuid) => ResourceKey | undefined;
}

export function assessMount(question: MountQuestion): MountVerdict {
  const { mount, chain, situation } = question;
  const volumeGuid = mountVolumeGuid(mount.metadata.name);
  const there = situation.mounts.get(volumeGuid);
  const record = situation.resources.get(resourceKey(mount));
  const utilityVM = mount.spec.isolation?.utilityVM?.id;
  const choice = chooseView(mount, there, record, situation);
  if ('code' in choice) return { kind: 'blocked', obstacle: choice };
  const request: MountRequest = {
    volumeGuid,
    path: mount.spec.path,
    chain: chain.layers.map(({ chainId }) => chainId),
    format: chain.format,
    access: mount.spec.access ?? 'ReadOnly',
    view: choice.view,
    ...(utilityVM === undefined ? {} : { utilityVM }),
    ...(mount.spec.expectedRootHash === undefined ? {} : { expectedRootHash: mount.spec.expectedRootHash }),
  };
  if (request.access === 'ReadWrite') request.snapshot = mountSnapshotKey(mount.metadata.name);
  const unexpected =
    findVmObstacle(request, chain, situation) ??
    findWritableObstacle(mount, request, situation) ??
    findUnexpectedRootHash(request, chain, situation);
  if (unexpected !== undefined) return { kind: 'blocked', obstacle: unexpected };
  const change = findChange(question, request, there, record);
  if (change === undefined) return { kind: 'unchanged' };
  if (change.drift && mount.spec.driftPolicy === 'Report') {
    const what = change.reasons.map(({ message }) => message).join('; ');
    return { kind: 'reported', message: `drift, only reported (driftPolicy: Report): ${what}` };
  }
  if (change.verb === 'change') return { kind: 'change', ...change, request };
  const occupied = findOccupant(question, request, there);
  if (occupied?.obstacle !== undefined) return { kind: 'blocked', obstacle: occupied.obstacle };
  return {
    kind: 'change',
    ...change,
    request,
    ...(occupied?.occupant === undefined ? {} : { occupant: occupied.occupant }),
    ...(choice.note === undefined ? {} : { note: choice.note }),
  };
}

/** A chain that is whole has its root hash already; of any other the host says so when it mounts. */
function findUnexpectedRootHash(
  { chain: chainIds, expectedRootHash: expected }: MountRequest,
  chain: DesiredChain,
  situation: Situation,
): Pick<Blocked, 'code' | 'message' | 'hint'> | undefined {
  const top = chainIds.at(-1);
  if (expected === undefined || top === undefined) return undefined;
  const { format } = chain;
  const layers = chainIds.map((chainId) => situation.layers.get(snapshotId({ chainId, format })));
  const shown = chain.merged ? situation.merges.get(mergeId({ chainId: top, format })) : layers.at(-1);
  if (shown?.rootHash === undefined || shown.rootHash === expected) return undefined;
  if ([...layers, shown].some((part) => part === undefined || part.faults.length > 0)) return undefined;
  return {
    code: 'corrupt',
    message: `spec.expectedRootHash is ${expected}, and the chain's root hash is ${shown.rootHash}`,
    hint: 'if the layers are the ones meant, expect the root hash that cimlet describe prints of the chain',
  };
}

function findChange(
  question: MountQuestion,
  request: MountRequest,
  there: ObservedMount | undefined,
  record: ResourceRecord | undefined,
): Pick<MountChange, 'verb' | 'drift' | 'reasons' | 'replaces'> | undefined {
  const { mount, situation } = question;
  const isApplied = record?.appliedDigest !== undefined;
  const wasApplied = isApplied && differences(recordedView(record), request, record, question).length === 0;
  const own = situation.mountRecords.get(request.volumeGuid);
  const interrupted: Reason = { code: 'interrupted', message: 'an earlier run was stopped halfway' };

  if (there === undefined || there.state === 'missing') {
    const wasMounted = there !== undefined || own?.state === 'mounted';
    if (wasMounted && (wasApplied || !situation.recordsKnown)) {
      const message = there?.message ?? `it was unmounted from ${request.path} by somebody else`;
      return { verb: 'repair', drift: true, reasons: [{ code: 'unmounted', message }] };
    }
    if (isApplied && wasMounted) {
      return {
        verb: 'replace',
        drift: false,
        reasons: differences(recordedView(record), request, record, question),
        replaces: request.volumeGuid,
      };
    }
    if (own !== undefined)
      return { verb: 'create', drift: false, reasons: [interrupted], replaces: own.volumeGuid };
    return { verb: 'create', drift: false, reasons: [{ code: 'new', message: 'not on this host yet' }] };
  }

  const reasons = differences(there, request, record, question);
  if (reasons.length > 0) {
    return {
      verb: wasApplied ? 'repair' : 'replace',
      drift: wasApplied,
      reasons,
      replaces: request.volumeGuid,
    };
  }
  if (there.state === 'covered') {
    const message = there.message ?? 'something else is mounted over it';
    return {
      verb: 'repair',
      drift: true,
      reasons: [{ code: 'covered', message }],
      replaces: there.volumeGuid,
    };
  }
  if (!situation.recordsKnown) return undefined;
  if (!isApplied) return { verb: 'create', drift: false, reasons: [interrupted] };
  // It is as wanted: what is missing is its record.
  const unrecorded =
    findSpecChange(record, intentDigest(mount), question.sourceId) ?? (wasApplied ? undefined : interrupted);
  return unrecorded === undefined ? undefined : { verb: 'change', drift: false, reasons: [unrecorded] };
}

/** Why a resource that was applied must be recorded anew: another spec, or another source that owns it now. */
export function findSpecChange(
  record: ResourceRecord | undefined,
  digest: string,
  sourceId: string,
): Reason | undefined {
  if (record?.appliedDigest === undefined) return undefined;
  if (record.appliedDigest !== digest) return { code: 'spec-changed', message: 'its spec changed' };
  if (record.sourceId !== sourceId)
    return { code: 'spec-changed', message: `it moves here from source ${record.sourceId}` };
  return undefined;
}

type ComparedView = Pick<
  ObservedMount,
  'path' | 'chainId' | 'format' | 'view' | 'access' | 'rootHash' | 'utilityVM'
>;

function recordedView(record: ResourceRecord): ComparedView | undefined {
  const { mount, chain } = record.facts;
  const chainId = chain?.chainIds.at(-1);
  if (mount === undefined || chain === undefined || chainId === undefined) return undefined;
  const { path, view, access, rootHash, utilityVM } = mount;
  return { path, view, access, chainId, format: chain.format, rootHash, utilityVM };
}

function differences(
  view: ComparedView | undefined,
  request: MountRequest,
  record: ResourceRecord | undefined,
  { mount, chain, situation }: MountQuestion,
): Reason[] {
  if (view === undefined) return [{ code: 'new', message: 'not on this host yet' }];
  const reasons: Reason[] = [];
  if (comparablePlace(view, situation.host) !== comparablePlace(request, situation.host)) {
    reasons.push({
      code: 'path-changed',
      message: `from ${describePlace(view)} to ${describePlace(request)}`,
    });
  }
  if (view.chainId !== request.chain.at(-1) || view.format !== request.format) {
    const specChanged = record?.appliedDigest !== intentDigest(mount);
    reasons.push({
      code: mount.spec.image !== undefined && !specChanged ? 'image-changed' : 'layers-changed',
      message: `shows ${view.format} ${view.chainId}`,
    });
  }
  if (view.view !== request.view) {
    reasons.push({ code: 'view-changed', message: `from ${view.view} to ${request.view}` });
  }
  if (view.access !== request.access) {
    reasons.push({ code: 'spec-changed', message: `access from ${view.access} to ${request.access}` });
  }
  const { rootHash } = view;
  const expected = request.expectedRootHash;
  if (chain.verified && (rootHash === undefined || (expected !== undefined && rootHash !== expected))) {
    const shown = rootHash === undefined ? 'unsealed layers' : `root hash ${rootHash}`;
    if (reasons.length === 0) reasons.push({ code: 'seal-changed', message: `shows ${shown}` });
  }
  return reasons;
}

/** The view asked for; else the one it has; else Kernel where the host can, else Extracted. */
function chooseView(
  mount: MountResource,
  there: ObservedMount | undefined,
  record: ResourceRecord | undefined,
  situation: Situation,
): { view: ViewKind; note?: string } | Pick<Blocked, 'code' | 'message' | 'hint'> {
  const { view: asked, isolation } = mount.spec;
  if (isolation?.utilityVM !== undefined) return asked === 'Extracted' ? NO_EXTRACTION : { view: 'Kernel' };
  const capabilities = situation.observed?.capabilities;
  const can = (view: ViewKind) => capabilities === undefined || capabilities[`view.${view}`].available;
  const why = (view: ViewKind) => capabilities?.[`view.${view}`].reason ?? 'not available';
  if (asked !== undefined) {
    if (can(asked)) return { view: asked };
    return {
      code: 'unsupported-host',
      message: `spec.view: this host has no ${asked} view: ${why(asked)}`,
      hint: capabilities?.[`view.${asked}`].hint ?? 'leave spec.view out to take what the host can do',
    };
  }
  if (there?.state === 'mounted') return { view: there.view };
  const recorded = record?.facts.mount?.view;
  if (recorded !== undefined && can(recorded)) return { view: recorded };
  if (can('Kernel')) return { view: 'Kernel' };
  if (can('Extracted')) {
    return {
      view: 'Extracted',
      note: `view Extracted, since a Kernel view is impossible here: ${why('Kernel')}`,
    };
  }
  return {
    code: 'unsupported-host',
    message: `this host can show no view: Kernel: ${why('Kernel')}; Extracted: ${why('Extracted')}`,
    hint: capabilities?.['view.Kernel'].hint,
  };
}

const NO_EXTRACTION = {
  code: 'invalid-manifest',
  message: 'spec.view: nothing is extracted into a utility VM',
  hint: 'leave spec.view out',
} as const;

const FOREIGN: Partial<Record<PathState['kind'], string>> = {
  directory: 'a directory that is not empty',
  file: 'a file',
  symlink: 'a symbolic link',
  'foreign-mount': 'a mount that cimlet did not make',
  unreadable: 'something that cannot be read',
};

function findOccupant(
  question: MountQuestion,
  request: MountRequest,
  there: ObservedMount | undefined,
): { obstacle?: Pick<Blocked, 'code' | 'message' | 'hint'>; occupant?: ResourceKey } | undefined {
  const { situation } = question;
  const state = request.utilityVM === undefined ? situation.observed?.paths[request.path] : undefined;
  const occupant = situation.mountedAt.get(comparablePlace(request, situation.host));
  if (occupant !== undefined && occupant.volumeGuid !== request.volumeGuid) {
    const leaver = question.leaverOf(occupant.volumeGuid);
    if (leaver !== undefined) return { occupant: leaver };
    const owner = situation.mountRecords.get(occupant.volumeGuid)?.name;
    return {
      obstacle: {
        code: 'already-exists',
        message: `${request.path} shows ${owner === undefined ? 'another view of this root' : `Mount/${owner}`}`,
        hint: 'mount elsewhere, or delete that one first',
      },
    };
  }
  const foreign = there?.state === 'covered' && state?.kind !== 'own-mount' ? 'foreign-mount' : state?.kind;
  const what = foreign === undefined ? undefined : FOREIGN[foreign];
  if (what === undefined) return undefined;
  const detail = state?.detail === undefined ? '' : ` (${state.detail})`;
  return {
    obstacle: {
      code: 'already-exists',
      message: `there is ${what} at ${request.path}${detail}: left as it is`,
      hint:
        foreign === 'foreign-mount'
          ? 'unmount what covers this path, or mount elsewhere'
          : 'move it away, or mount elsewhere',
    },
  };
}
