/** WCIFS layers as the layers below one that is written: their files as a scratch over them shows them, and the utility VM. */

import { win32 } from 'node:path';
import type { FileInfo, StreamInfo } from '../../cim/types.ts';
import { foldName } from '../../layers/layer-tree.ts';
import type { LowerView } from '../../layers/lower-view.ts';
import type { FileFacts } from '../../native/windows/file-info.ts';
import { MountedLayers } from './mounted-layers.ts';

const FILES = foldName('Files');
const UTILITY_VM = foldName('UtilityVM');

/** The files that a layer says something of, and where they are. */
interface Place {
  tree: LowerView;
  path: string;
}

export class WcifsLayers implements LowerView {
  readonly #files: LowerView;
  readonly #utilityVm: LowerView | undefined;

  /** `volume` is the scratch's, `\\\\?\\Volume{guid}\\`; `parents` are the layers' folders, topmost first. */
  constructor(volume: string, parents: readonly string[], facts: FileFacts) {
    this.#files = new MountedLayers(volume, facts);
    const parent = parents.find((path) => facts.info(win32.join(path, 'UtilityVM'))?.isDirectory);
    this.#utilityVm = parent === undefined ? undefined : new MountedLayers(`${parent}\\`, facts);
  }

  stat(path: string): FileInfo | undefined {
    const place = this.#place(path);
    return place?.tree.stat(place.path);
  }

  entries(path: string): Iterable<{ name: string }> {
    const place = this.#place(path);
    return place === undefined ? [] : place.tree.entries(place.path);
  }

  streams(path: string): readonly StreamInfo[] {
    const place = this.#place(path);
    return place === undefined ? [] : place.tree.streams(place.path);
  }

  read(path: string, stream?: string): Iterable<Uint8Array> {
    const place = this.#place(path);
    return place === undefined ? [] : place.tree.read(place.path, stream);
  }

  /** Nobody asks for hives: ImportLayer merges them. */
  #place(path: string): Place | undefined {
    const [root = '', ...rest] = path.split('/');
    if (foldName(root) === FILES) return { tree: this.#files, path: rest.join('/') };
    if (foldName(root) === UTILITY_VM && this.#utilityVm !== undefined)
      return { tree: this.#utilityVm, path };
    return undefined;
  }
}
