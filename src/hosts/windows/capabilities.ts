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
import type { Capabilities, CapabilityState } from '../host.ts';
import type { CimfsGuard } from './cimfs-guard.ts';
import { examineStore } from './preflight.ts';

export interface WindowsCapabilities {
  capabilities: Capabilities;
  build: number;
  /** `26100.2314` */
  version: string;
}

const NOT_YET = 'not supported yet by the windows host';

export async function probeCapabilities(
  api: WindowsApi,
  root: string,
  guard: CimfsGuard,
): Promise<WindowsCapabilities> {
  const facts = probeWindows(api);
  // Whatever else is there: a store where Windows can't keep layers, or a CimFS that takes the machine down, ends it all.
  const refusal = (await examineStore(api.kernel32, root)) ?? (await guard.refusal());
  const known = refusal === undefined ? byFeatures(facts) : refused(refusal);
  return {
    capabilities: capabilityTable(known, NOT_YET),
    build: facts.build,
    version: buildText(facts),
  };
}

function byFeatures(facts: WindowsFacts): Partial<Capabilities> {
  const features = windowsFeatures(facts);
  const blockMount = all(features['blockCim.mount'], features['mergedCim.mount']);
  return {
    'ForkedCIM.write': mergingHives(features, all(features['forkedCim.write'], features['forkedCim.mount'])),
    'ForkedCIM.mount': features['forkedCim.mount'],
    // What layers below hold is seen by mounting them.
    'BlockCIM.write': mergingHives(features, all(features['blockCim.write'], blockMount)),
    'BlockCIM.mount': blockMount,
    merge: all(features['mergedCim.write'], features['mergedCim.mount']),
    seal: all(features['verifiedCim.write'], features['verifiedCim.mount']),
    'view.Kernel': features.bindFilter,
    active: all(features['forkedCim.mount'], features.scratch, features.overlayFilter, features.disks),
    'view.Extracted': {
      available: false,
      reason: 'the windows host mounts views and extracts none',
      hint: 'use view: Kernel',
    },
  };
}

function refused(state: CapabilityState): Partial<Capabilities> {
  const names = [
    'ForkedCIM.write',
    'ForkedCIM.mount',
    'BlockCIM.write',
    'BlockCIM.mount',
    'merge',
    'seal',
  ] as const;
  return Object.fromEntries(
    [...names, 'view.Kernel' as const, 'active' as const].map((name) => [name, state]),
  );
}

/** Says so where cimlet merges registry hives in the place of Windows. */
function mergingHives({ hives }: WindowsFeatures, state: CapabilityState): CapabilityState {
  if (!state.available || hives.available) return state;
  return { available: true, reason: `cimlet merges registry hives itself: ${hives.reason}` };
}

/** The first that isn't available. */
function all(...states: readonly FeatureState[]): CapabilityState {
  return states.find(({ available }) => !available) ?? { available: true };
}
