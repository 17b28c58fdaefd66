/** Registry hives merged by cimlet itself. What becomes of which key: docs/decisions/0006-hive-merge.md. */

import { CimletError } from '../errors.ts';
import { mergeHives } from '../hive/merge.ts';
import type { Hive } from '../hive/model.ts';
import { readHive } from '../hive/reader.ts';
import { writeHive } from '../hive/writer.ts';
import type { HiveFile, HiveMerger } from './hives.ts';

/** Hives are merged in memory, which takes seven times their size: 2 GiB at most. Windows' own are below 200 MiB. */
const MAX_HIVE = 256 << 20;

export const ownHiveMerger: HiveMerger = {
  merge(base, delta, create) {
    const [baseHive, deltaHive] = [parse(base), parse(delta)];
    const merged = writeHive(mergeHives(baseHive, deltaHive));
    const stream = create(merged.length);
    stream.write(merged);
    stream.close();
    return [
      ...(baseHive.dirty ? [dirtyWarning(base.name)] : []),
      ...(deltaHive.dirty ? [dirtyWarning(delta.name)] : []),
    ];
  },
};

function parse({ name, size, chunks }: HiveFile): Hive {
  if (size > MAX_HIVE) {
    throw new CimletError(
      'corrupt',
      `registry hive ${name} has ${size} bytes; at most ${MAX_HIVE} can be merged`,
    );
  }
  return readHive(Buffer.concat([...chunks], size), name);
}

function dirtyWarning(what: string): string {
  return `registry hive ${what} was saved in the middle of a write: changes that only its log has are lost`;
}
