/**
 * Where WCIFS layers are: `snapshots/<id>.wcifs/<first half of id>` is the layer as Windows has it, beside its record. Windows
 * knows a layer by the last part of its path, which therefore stays the same under the folder's temporary name.
 */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { ChainId, LayerFault } from '../host.ts';
import { type FolderPrefix, type Layout, layerFolder, layerName, snapshotPath } from '../layout.ts';

const NAME_LENGTH = 32;

export function wcifsPath(layout: Layout, chainId: ChainId, prefix: FolderPrefix = ''): string {
  const folder = snapshotPath(layout, layerFolder({ chainId, format: 'WCIFS' }), prefix);
  return join(folder, layerName(chainId).slice(0, NAME_LENGTH));
}

/** The folders of a chain's layers, in the order in which Windows wants them. */
export function topmostFirst(layout: Layout, chain: readonly ChainId[]): string[] {
  return chain.map((chainId) => wcifsPath(layout, chainId)).reverse();
}

/** Files of a layer that nothing can be done without. */
export function wcifsFaults(layout: Layout, chainId: ChainId): LayerFault[] {
  const path = join(wcifsPath(layout, chainId), 'Files');
  return existsSync(path) ? [] : [{ code: 'file-missing', message: 'its folder Files is gone', path }];
}

/** Whether a name in a layer's folder is the layer's own. */
export function isWcifsName(name: string): boolean {
  return name.length === NAME_LENGTH && /^[0-9a-f]+$/.test(name);
}

/** Whether something below `snapshots` is the folder of a WCIFS layer, under whatever prefix. */
export function isWcifsFolder(path: string): boolean {
  return /\.wcifs(?:~\d+)?$/.test(path);
}
