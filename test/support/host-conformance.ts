/** Registers the conformance cases with vitest; what a host can't do is skipped by name. */

import { describe, it } from 'vitest';
import type { Capabilities } from '../../src/hosts/host.ts';
import { type ConformanceCase, conformanceCases } from '../conformance/cases.ts';
import type { HostFixture } from '../conformance/host.ts';

export function hostConformance(
  name: string,
  capabilities: Capabilities,
  withFixture: (run: (fixture: HostFixture) => Promise<void>) => Promise<void>,
  isWanted: (conformanceCase: ConformanceCase) => boolean = () => true,
): void {
  describe(`${name} keeps the Host contract`, () => {
    registerCases(conformanceCases.filter(isWanted), capabilities, ({ run }) => withFixture(run));
  });
}

/** `runCase` may run it in another process. */
export function registerCases(
  cases: readonly ConformanceCase[],
  capabilities: Capabilities,
  runCase: (conformanceCase: ConformanceCase) => Promise<void>,
): void {
  for (const conformanceCase of cases) {
    const missing = conformanceCase.needs.filter((capability) => !capabilities[capability].available);
    const suffix = missing.length === 0 ? '' : ` [no ${missing.join(', ')}]`;
    it.skipIf(missing.length > 0)(conformanceCase.name + suffix, () => runCase(conformanceCase));
  }
}
