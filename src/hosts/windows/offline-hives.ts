/** Registry hives merged by Windows, whose own layers they are: offreg.dll, as hcsshim's CIM writers use it. Blocks. */

import { randomUUID } from 'node:crypto';
import { closeSync, openSync, readSync, rmSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { CimStream } from '../../cim/types.ts';
import { classify } from '../../errors.ts';
import type { HiveFile, HiveMerger } from '../../layers/hives.ts';
import { ownHiveMerger } from '../../layers/own-hives.ts';
import type { HiveHandle, Offreg } from '../../native/windows/offreg.ts';

const CHUNK = 1 << 20;

/** Offreg where this Windows has it, else cimlet's own code, which warns of it: docs/decisions/0010-hives-without-offreg.md. */
export function hiveMerger(offreg: Offreg, folder: string): HiveMerger {
  if (offreg.canMergeHives()) return new OfflineHives(offreg, folder);
  return {
    merge: (base, delta, create) => [
      ...ownHiveMerger.merge(base, delta, create),
      `registry hive ${delta.name} was merged by cimlet itself, since this Windows has no offreg.dll`,
    ],
  };
}

/** Offreg works on files, which are in `folder` meanwhile. */
class OfflineHives implements HiveMerger {
  readonly #offreg: Offreg;
  readonly #folder: string;

  constructor(offreg: Offreg, folder: string) {
    this.#offreg = offreg;
    this.#folder = folder;
  }

  merge(base: HiveFile, delta: HiveFile, create: (size: number) => CimStream): string[] {
    const folder = join(this.#folder, `tmp-hives-${randomUUID()}`);
    const [below, above, merged] = ['base', 'delta', 'merged'].map((name) => `${folder}-${name}`) as [
      string,
      string,
      string,
    ];
    try {
      writeWhole(below, base);
      writeWhole(above, delta);
      this.#withHive(below, (baseHive) =>
        this.#withHive(above, (deltaHive) => this.#save([baseHive, deltaHive], merged)),
      );
      copyTo(create(statSync(merged).size), merged);
      return [];
    } catch (error) {
      throw classify(error, `merge registry hive ${delta.name}`);
    } finally {
      for (const file of [below, above, merged]) rmSync(file, { force: true });
    }
  }

  #withHive(file: string, use: (hive: HiveHandle) => void): void {
    const hive = this.#offreg.openHive(file);
    try {
      use(hive);
    } finally {
      this.#offreg.closeHive(hive);
    }
  }

  #save(baseFirst: readonly HiveHandle[], file: string): void {
    const hive = this.#offreg.mergeHives(baseFirst);
    try {
      this.#offreg.saveHive(hive, file);
    } finally {
      this.#offreg.closeHive(hive);
    }
  }
}

function writeWhole(file: string, { chunks }: HiveFile): void {
  const descriptor = openSync(file, 'wx');
  try {
    for (const chunk of chunks)
      for (let done = 0; done < chunk.length; ) done += writeSync(descriptor, chunk, done);
  } finally {
    closeSync(descriptor);
  }
}

function copyTo(stream: CimStream, file: string): void {
  const descriptor = openSync(file, 'r');
  try {
    for (;;) {
      const chunk = Buffer.allocUnsafeSlow(CHUNK);
      const length = readSync(descriptor, chunk, 0, chunk.length, null);
      if (length === 0) break;
      stream.write(chunk.subarray(0, length));
    }
  } finally {
    closeSync(descriptor);
  }
  stream.close();
}
