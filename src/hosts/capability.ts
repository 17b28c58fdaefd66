/** Capabilities as tables, and the one error for asking a host for what it can't do. */

import { CimletError } from '../errors.ts';
import type { Capabilities, Capability, CapabilityState } from './host.ts';

export const CAPABILITIES: readonly Capability[] = [
  'ForkedCIM.write',
  'ForkedCIM.mount',
  'BlockCIM.write',
  'BlockCIM.mount',
  'WCIFS.write',
  'WCIFS.mount',
  'LCOW.write',
  'LCOW.mount',
  'merge',
  'seal',
  'view.Kernel',
  'view.Extracted',
  'active',
  'commit',
  'export',
  'utilityVM',
];

/** A full table: what `known` doesn't name is unavailable for `otherwise`. */
export function capabilityTable(known: Partial<Capabilities>, otherwise: string): Capabilities {
  const table: Partial<Capabilities> = {};
  for (const name of CAPABILITIES) table[name] = known[name] ?? { available: false, reason: otherwise };
  return table as Capabilities;
}

/** Throws `unsupported-host` with the capability's own reason unless it is available. */
export function requireCapability(name: Capability, state: CapabilityState, operation: string): void {
  if (state.available) return;
  throw new CimletError('unsupported-host', `${operation}: ${name}: ${state.reason ?? 'not available'}`, {
    hint: state.hint,
  });
}
