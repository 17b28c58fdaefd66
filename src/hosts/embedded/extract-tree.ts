/**
 * Writes the tree a view shows as ordinary files, for machines whose kernel can't mount it. Times are kept to the
 * microsecond; extended attributes as far as the file system takes them.
 */

import {
  chmodSync,
  closeSync,
  ftruncateSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  openSync,
  symlinkSync,
  writeSync,
} from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import type { ErofsInode, ErofsTime } from '../../erofs/source.ts';
import { CimletError, classify } from '../../errors.ts';
import { setXattr } from '../../native/linux/xattr.ts';
import type { JobControl } from '../job-thread.ts';
import type { CimView } from './cim-view.ts';
import type { JobResults } from './jobs.ts';

const INODES_PER_TURN = 64;

/** `target` must not exist. What was written stays there on failure. */
export async function extractTree(
  view: CimView,
  target: string,
  control: JobControl,
): Promise<JobResults['extract']> {
  const extraction = new Extraction(view);
  try {
    mkdirSync(target);
    let done = 0;
    for (const _ of extraction.steps(view.root, Buffer.from(target))) {
      control.checkpoint();
      done++;
      if (done % INODES_PER_TURN !== 0) continue;
      control.progress({ phase: 'extracting', done, total: view.inodes });
      await setImmediate();
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENAMETOOLONG')
      throw new CimletError(
        'unsupported-host',
        `extract to ${target}: a path is longer than this system allows`,
        {
          cause: error,
        },
      );
    throw classify(error, `extract to ${target}`);
  }
  control.progress({ phase: 'extracting', done: view.inodes, total: view.inodes });
  const { refusedXattrs } = extraction;
  const warnings =
    refusedXattrs === 0
      ? []
      : [`${refusedXattrs} extended attributes were left out: the file system of ${target} refuses them`];
  return { inodes: view.inodes, warnings };
}

class Extraction {
  readonly #view: CimView;
  readonly #written = new Map<number, Buffer>();
  refusedXattrs = 0;

  constructor(view: CimView) {
    this.#view = view;
  }

  /** Fills the directory `path`, one entry per step, and gives it its own metadata last. */
  *steps(key: number, path: Buffer): Generator<void> {
    for (const entry of this.#view.entries(key)) {
      const child = Buffer.concat([path, Buffer.from('/'), entry.name]);
      const first = this.#written.get(entry.key);
      if (first !== undefined) {
        linkSync(first, child);
        yield;
        continue;
      }
      const inode = this.#view.inode(entry.key);
      if (inode.type === 'directory') {
        mkdirSync(child);
        yield* this.steps(entry.key, child);
        continue;
      }
      this.#written.set(entry.key, child);
      if (inode.type === 'symlink') symlinkSync(inode.target as Buffer, child);
      else this.#writeFile(inode, child);
      this.#setMetadata(inode, child);
      yield;
    }
    this.#setMetadata(this.#view.inode(key), path);
    yield;
  }

  #writeFile(inode: Extract<ErofsInode, { type: 'file' }>, path: Buffer): void {
    const file = openSync(path, 'wx', 0o600);
    try {
      if (inode.data.kind === 'hole') ftruncateSync(file, inode.size);
      else if (inode.data.kind === 'device') throw new Error('a view to extract has no devices');
      else {
        const data = inode.data.read();
        for (const chunk of data instanceof Uint8Array ? [data] : data) writeAll(file, chunk);
      }
    } finally {
      closeSync(file);
    }
  }

  #setMetadata(inode: ErofsInode, path: Buffer): void {
    for (const { name, value } of inode.xattrs) if (!setXattr(path, name, value)) this.refusedXattrs++;
    if (inode.type !== 'symlink') chmodSync(path, inode.mode);
    // As text, since Node takes negative numbers for "now".
    const mtime = String(secondsOf(inode.mtime));
    lutimesSync(path, mtime, mtime);
  }
}

function writeAll(file: number, data: Uint8Array): void {
  for (let done = 0; done < data.length; ) done += writeSync(file, data, done);
}

function secondsOf({ seconds, nanoseconds }: ErofsTime): number {
  return Number(seconds) + nanoseconds / 1e9;
}
