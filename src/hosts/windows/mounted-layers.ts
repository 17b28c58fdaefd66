/**
 * The files of a volume: the layers below one that is written, or a scratch over them. Whoever made those chose what links
 * in them point at, so no path is looked up through one: Windows would follow it out of the volume.
 */

import { closeSync, openSync, readdirSync, readSync } from 'node:fs';
import type { FileInfo, StreamInfo } from '../../cim/types.ts';
import { classify, isErrorCode } from '../../errors.ts';
import type { FileTree } from '../../layers/export-tree.ts';
import type { FileFacts } from '../../native/windows/file-info.ts';

const CHUNK = 1 << 20;

export class MountedLayers implements FileTree {
  /** The volume, or a directory of it. */
  readonly from: string;
  readonly #facts: FileFacts;
  /** The directory found last to be reached without links: paths come by directory. */
  #reached = '';

  /** `from` is `\\?\Volume{guid}\`, or a directory, which ends in a backslash too. */
  constructor(from: string, facts: FileFacts) {
    this.from = from;
    this.#facts = facts;
  }

  /** Descriptor, link and extended attributes are read when asked for: most callers only want to know what is there. */
  stat(path: string): FileInfo | undefined {
    const slash = path.lastIndexOf('/');
    if (slash >= 0 && !this.#reaches(path.slice(0, slash))) return undefined;
    const full = this.#full(path);
    const info = this.#facts.info(full);
    if (info === undefined) return undefined;
    const facts = this.#facts;
    return {
      ...info,
      id: 0,
      get securityDescriptor() {
        return facts.securityDescriptor(full);
      },
      get reparseData() {
        return info.reparseTag === 0 ? undefined : facts.reparseData(full);
      },
      get extendedAttributes() {
        return facts.extendedAttributes(full);
      },
    };
  }

  identity(path: string): string | undefined {
    const full = this.#full(path);
    const info = this.#facts.info(full);
    return info === undefined || info.isDirectory || info.links < 2 ? undefined : this.#facts.fileId(full);
  }

  entries(path: string): { name: string }[] {
    if (!this.#reaches(path)) return [];
    const full = this.#full(path);
    try {
      return readdirSync(full).map((name) => ({ name }));
    } catch (error) {
      const classified = classify(error, `list ${full}`);
      if (isErrorCode(classified, 'not-found', 'failed-precondition')) return [];
      throw classified;
    }
  }

  streams(path: string): readonly StreamInfo[] {
    return this.#isPlain(path) ? this.#facts.streams(this.#full(path)) : [];
  }

  *read(path: string, stream?: string): Generator<Uint8Array> {
    if (!this.#isPlain(path)) return;
    const full = stream === undefined ? this.#full(path) : `${this.#full(path)}:${stream}`;
    const descriptor = openSync(full, 'r');
    try {
      for (;;) {
        const chunk = Buffer.allocUnsafeSlow(CHUNK);
        const length = readSync(descriptor, chunk, 0, chunk.length, null);
        if (length === 0) return;
        yield chunk.subarray(0, length);
      }
    } catch (error) {
      throw classify(error, `read ${full}`);
    } finally {
      closeSync(descriptor);
    }
  }

  /** Whether a path is there and is no link, nor below one. */
  #isPlain(path: string): boolean {
    return this.stat(path)?.reparseTag === 0;
  }

  /** Whether a path is a directory that is reached without links. */
  #reaches(directory: string): boolean {
    if (directory === '' || directory === this.#reached) return true;
    const slash = directory.lastIndexOf('/');
    if (slash >= 0 && !this.#reaches(directory.slice(0, slash))) return false;
    const info = this.#facts.info(this.#full(directory));
    if (info === undefined || !info.isDirectory || info.reparseTag !== 0) return false;
    this.#reached = directory;
    return true;
  }

  #full(path: string): string {
    return this.from + path.replaceAll('/', '\\');
  }
}
