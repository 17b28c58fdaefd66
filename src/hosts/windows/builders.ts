import type { LayerFormat } from '../host.ts';
import { LINUX_DISK_BUILDER } from '../unpack-linux.ts';

/**
 * Who wrote a layer or a merged CIM: this code and cimfs. What one build of Windows writes another may not read, so the
 * build is part of it, and layers are built anew after an upgrade; Windows has no part in Linux layers.
 */
export function builderOf(what: LayerFormat | 'merge', build: number): string {
  if (what === 'LCOW') return LINUX_DISK_BUILDER;
  const names = {
    ForkedCIM: 'windows-forked-cim/1',
    BlockCIM: 'windows-block-cim/1',
    WCIFS: 'windows-wcifs/1',
    merge: 'windows-merged-cim/1',
  };
  return `${names[what]}+${build}`;
}
