/** Every conformance case, for every host. */

import { blockCases } from './block-cims.ts';
import { type ConformanceCase, hostCases, hostCasesOfBlocks, hostCasesOfWcifs } from './host.ts';
import { snapshotCases } from './snapshots.ts';

export type { ConformanceCase } from './host.ts';

export const conformanceCases: readonly ConformanceCase[] = [
  ...hostCases,
  ...hostCasesOfBlocks,
  ...hostCasesOfWcifs,
  ...blockCases,
  ...snapshotCases,
];
