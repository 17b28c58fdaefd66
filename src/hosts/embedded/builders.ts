/** Who writes what: each changes whenever the same input would give other bytes. */

import type { LayerFormat } from '../host.ts';
import { LINUX_DISK_BUILDER } from '../unpack-linux.ts';

const LAYER_BUILDERS: Partial<Record<LayerFormat, string>> = {
  ForkedCIM: 'embedded-forked-cim/2',
  BlockCIM: 'embedded-block-cim/1',
  LCOW: LINUX_DISK_BUILDER,
};

export const MERGE_BUILDER = 'embedded-merged-cim/1';

/** Of layers in a format that this host writes; layers built on one another must agree on it. */
export function layerBuilder(format: LayerFormat): string {
  const builder = LAYER_BUILDERS[format];
  if (builder === undefined) throw new Error(`the embedded host writes no ${format} layers`);
  return builder;
}
