/** What the Windows host can do here, and why not the rest. */

import {
  buildText,
  type FeatureState,
  probeWindows,
  type WindowsFacts,
  type WindowsFeatures,
  windowsFeatures,
} from '../../native/windows/capabilities.ts';
import type { WindowsApi } from '../../native/windows/windows.ts';
import { capabilityTable } from '../capability.ts';
import type { Capabilities, Capability, CapabilityState } from '../host.ts';
import type { CimfsGuard } from './cimfs-guard.ts';
import { examineStore } from './preflight.ts';

export interface WindowsCapabilities {
  capabilities: Capabilities;
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

const NOT_YET = 'not supported yet by the windows host';

export async function probeCapabilities(
  api: WindowsApi,
  root: string,
  guard: CimfsGuard,
): Promise<WindowsCapabilities> {
  const facts = probeWindows(api);
  const known = byFeatures(facts);
  // Whatever else is there: a CimFS that takes the machine down ends what is done with CIMs.
  const cimRefusal = await guard.refusal();
  if (cimRefusal !== undefined) refuse(known, CIM_NAMES, cimRefusal);
  // And a store where Windows can't keep layers ends it all.
  const refusal = await examineStore(api.kernel32, root);
  if (refusal !== undefined) refuse(known, [...CIM_NAMES, ...STORE_NAMES], refusal);
  return {
    capabilities: capabilityTable(known, NOT_YET),
    build: facts.build,
    version: buildText(facts),
  };
}

function byFeatures(facts: WindowsFacts): Partial<Capabilities> {
  const features = windowsFeatures(facts);
  const { scratch, overlayFilter, disks } = features;
  const active = all(features['forkedCim.mount'], scratch, overlayFilter, disks);
  const blockMount = all(features['blockCim.mount'], features['mergedCim.mount']);
  return {
    'ForkedCIM.write': mergingHives(features, all(features['forkedCim.write'], features['forkedCim.mount'])),
    'ForkedCIM.mount': features['forkedCim.mount'],
    // What layers below hold is seen by mounting them.
    'BlockCIM.write': mergingHives(features, all(features['blockCim.write'], blockMount)),
    'BlockCIM.mount': blockMount,
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
    active,
    commit: active,
    'view.Extracted': {
      available: false,
      reason: 'the windows host mounts views and extracts none',
      hint: 'use view: Kernel',
    },
  };
}

function refuse(known: Partial<Capabilities>, names: readonly Capability[], state: CapabilityState): void {
  for (const name of names) known[name] = state;
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
