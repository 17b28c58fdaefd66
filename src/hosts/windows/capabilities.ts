/** What the Windows host can do here, and why not the rest. */

import {
  buildText,
  type FeatureState,
  probeWindows,
  type WindowsFacts,
  type WindowsFeatures,
  windowsFeatures,
} from '../../native/windows/capabilities.ts';
import { Dlls } from '../../native/windows/dll.ts';
import { fileFacts } from '../../native/windows/file-info.ts';
import type { WindowsApi } from '../../native/windows/windows.ts';
import { capabilityTable } from '../capability.ts';
import type { Capabilities, Capability, CapabilityState, LayerFormat } from '../host.ts';
import type { CimfsGuard } from './cimfs-guard.ts';
import { examineStore } from './preflight.ts';

/** Whether scratches over layers of a format can be made and written to here. */
export type ScratchStates = Readonly<Record<LayerFormat, CapabilityState>>;

export interface WindowsCapabilities {
  capabilities: Capabilities;
  scratches: ScratchStates;
  build: number;
  /** `26100.2314` */
  version: string;
}

const CIM_NAMES: readonly Capability[] = [
  'ForkedCIM.write',
  'ForkedCIM.mount',
  'BlockCIM.write',
  'BlockCIM.mount',
  'merge',
  'seal',
];
const STORE_NAMES: readonly Capability[] = [
  'WCIFS.write',
  'WCIFS.mount',
  'LCOW.write',
  'export',
  'view.Kernel',
  'active',
  'commit',
];
const FORMATS: readonly LayerFormat[] = ['ForkedCIM', 'BlockCIM', 'WCIFS', 'LCOW'];
const CIM_FORMATS: readonly LayerFormat[] = ['ForkedCIM', 'BlockCIM'];

const NOT_YET = 'not supported yet by the windows host';

export async function probeCapabilities(
  api: WindowsApi,
  root: string,
  guard: CimfsGuard,
): Promise<WindowsCapabilities> {
  const facts = probeWindows(api);
  const refusals = {
    cim: await guard.refusal(),
    store: await examineStore({ kernel32: api.kernel32, facts: fileFacts(new Dlls()) }, root),
  };
  return { ...windowsCapabilities(facts, refusals), build: facts.build, version: buildText(facts) };
}

/** What a machine can do, but for what speaks against CimFS, which takes it down, or against where the root is. */
export function windowsCapabilities(
  facts: WindowsFacts,
  { cim, store }: { cim?: CapabilityState | undefined; store?: CapabilityState | undefined } = {},
): Pick<WindowsCapabilities, 'capabilities' | 'scratches'> {
  const features = windowsFeatures(facts);
  const scratches = scratchStates(features);
  const known = byFeatures(features);
  const refuse = (
    state: CapabilityState | undefined,
    names: readonly Capability[],
    formats: readonly LayerFormat[],
  ) => {
    if (state === undefined) return;
    for (const name of names) known[name] = state;
    for (const format of formats) scratches[format] = state;
  };
  refuse(cim, CIM_NAMES, CIM_FORMATS);
  refuse(
    lackOfPrivileges(facts),
    [...CIM_NAMES, 'WCIFS.write', 'WCIFS.mount', 'export', 'view.Kernel'],
    [...CIM_FORMATS, 'WCIFS'],
  );
  refuse(store, [...CIM_NAMES, ...STORE_NAMES], FORMATS);
  // Of which formats is said when one is asked for.
  const active = store ?? any(scratches.WCIFS, scratches.ForkedCIM, scratches.BlockCIM, scratches.LCOW);
  return { capabilities: capabilityTable({ ...known, active, commit: active }, NOT_YET), scratches };
}

/** Linux scratches are files that cimlet writes itself, and of use in utility VMs only. */
function scratchStates(features: WindowsFeatures): Record<LayerFormat, CapabilityState> {
  const { scratch, overlayFilter, disks } = features;
  const overCims = [scratch, overlayFilter, disks];
  return {
    ForkedCIM: all(features['forkedCim.mount'], ...overCims),
    BlockCIM: all(blockMount(features), ...overCims),
    WCIFS: features.wcifs,
    LCOW: features.computeSystems,
  };
}

function blockMount(features: WindowsFeatures): CapabilityState {
  return all(features['blockCim.mount'], features['mergedCim.mount']);
}

/** Layers are read as a backup and written as a restore does, and volumes mounted, by administrators only. */
function lackOfPrivileges({ privileges }: WindowsFacts): CapabilityState | undefined {
  const absent = Object.entries(privileges).flatMap(([name, state]) => (state === 'absent' ? [name] : []));
  if (absent.length === 0) return undefined;
  return {
    available: false,
    reason: `this process may not use ${absent.join(', ')}`,
    hint: 'run as an administrator',
  };
}

function byFeatures(features: WindowsFeatures): Partial<Capabilities> {
  return {
    'ForkedCIM.write': mergingHives(features, all(features['forkedCim.write'], features['forkedCim.mount'])),
    'ForkedCIM.mount': features['forkedCim.mount'],
    // What layers below hold is seen by mounting them.
    'BlockCIM.write': mergingHives(features, all(features['blockCim.write'], blockMount(features))),
    'BlockCIM.mount': blockMount(features),
    merge: all(features['mergedCim.write'], features['mergedCim.mount']),
    seal: all(features['verifiedCim.write'], features['verifiedCim.mount']),
    'WCIFS.write': features.wcifs,
    'WCIFS.mount': features.wcifs,
    'LCOW.write': { available: true },
    // Linux layers go to utility VMs only.
    'LCOW.mount': features.computeSystems,
    // What layers hold is seen by mounting them, or said by Windows.
    export: any(features.wcifs, features['forkedCim.mount']),
    utilityVM: all(features.computeSystems, features.vmAccess),
    'view.Kernel': features.bindFilter,
    'view.Extracted': {
      available: false,
      reason: 'the windows host mounts views and extracts none',
      hint: 'use view: Kernel',
    },
  };
}

/** Says so where cimlet merges registry hives in the place of Windows. */
function mergingHives({ hives }: WindowsFeatures, state: CapabilityState): CapabilityState {
  if (!state.available || hives.available) return state;
  return { available: true, reason: `cimlet merges registry hives itself: ${hives.reason}` };
}

/** Available when one of them is; the first's reason otherwise. */
function any(first: FeatureState, ...others: readonly FeatureState[]): CapabilityState {
  return [first, ...others].find(({ available }) => available) ?? first;
}

/** The first that isn't available. */
function all(...states: readonly FeatureState[]): CapabilityState {
  return states.find(({ available }) => !available) ?? { available: true };
}
