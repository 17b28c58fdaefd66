/** Registers the conformance cases with vitest; what a host can't do is skipped by name. */

import { describe, it } from 'vitest';
import type { Capabilities } from '../../src/hosts/host.ts';
import { blockCases } from '../conformance/block-cims.ts';
import { type ConformanceCase, type HostFixture, hostCases, hostCasesOfBlocks } from '../conformance/host.ts';

export function hostConformance(
  name: string,
  capabilities: Capabilities,
  withFixture: (run: (fixture: HostFixture) => Promise<void>) => Promise<void>,
  isWanted: (conformanceCase: ConformanceCase) => boolean = () => true,
): void {
  describe(`${name} keeps the Host contract`, () => {
    for (const { name: title, needs, run } of [...hostCases, ...hostCasesOfBlocks, ...blockCases].filter(
      isWanted,
    )) {
      const missing = needs.filter((capability) => !capabilities[capability].available);
      const suffix = missing.length === 0 ? '' : ` [no ${missing.join(', ')}]`;
      it.skipIf(missing.length > 0)(title + suffix, () => withFixture(run));
    }
  });
}
