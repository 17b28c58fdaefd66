import { corrupt } from './faults.ts';
import type { CimReader } from './reader.ts';
import type { FileId } from './types.ts';

/** Holds a walk through an image to the rule that a directory has one name: otherwise it might never end. */
export class ReachedDirectories {
  readonly #cim: Pick<CimReader, 'faultAt'>;
  readonly #reached = new Set<FileId>();

  constructor(cim: Pick<CimReader, 'faultAt'>) {
    this.#cim = cim;
  }

  /** A directory that was added before (by a cycle, or by two parents) is `corrupt`. */
  add(id: FileId, path: string): void {
    if (this.#reached.has(id)) throw corrupt(this.#cim.faultAt(id, `directory ${path} is reached twice`));
    this.#reached.add(id);
  }
}
