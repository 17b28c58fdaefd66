/** The region files of an image and their object ID files, every digest recomputed. */

import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { attempt, type FaultList } from './faults.ts';
import { objectIdFileName, RegionType } from './format.ts';
import { fileSize } from './image.ts';
import { ObjectIdFile } from './object-ids.ts';
import { digestStored, type Region, type RegionFiles } from './region-files.ts';

/** A region's header, and its object ID file with every digest. */
export function verifyRegion(region: Region, number: number, files: RegionFiles, faults: FaultList): void {
  if (faults.isBroken(region.path)) return;
  if (region.type > RegionType.smallData)
    faults.add({ file: region.path, offset: 34, message: `region type ${region.type} is unknown` });
  const path = join(dirname(region.path), objectIdFileName(region.guid, region.index));
  if (fileSize(path) === undefined) {
    faults.add({
      file: path,
      offset: 0,
      message: 'the object ID file is missing; the image reads without it',
    });
    return;
  }
  const ids = faults.collect(
    () =>
      new ObjectIdFile(
        path,
        attempt(`read ${path}`, () => readFileSync(path)),
      ),
  );
  if (ids === undefined) return;
  if (ids.header.type !== region.type)
    faults.add({
      file: path,
      offset: 34,
      message: `object IDs of region type ${ids.header.type}, not ${region.type}`,
    });
  const entries = Array.from({ length: ids.count }, (_, i) => ids.entry(i));
  entries.forEach((entry, i) => {
    const before = entries[i - 1];
    if (before !== undefined && before.digest.compare(entry.digest) > 0)
      faults.add({ file: path, offset: entry.position, message: 'an object ID is out of order' });
  });
  // By offset: what is on disk is read once, in order, however the entries lie.
  let end = 0;
  for (const { length, digest, offset, position } of entries.sort((a, b) => a.offset - b.offset)) {
    const what = `the object of ${length} bytes at 0x${offset.toString(16)}`;
    if (offset < end) faults.add({ file: path, offset: position, message: `${what} overlaps another` });
    else {
      const found = faults.collect(() => digestStored(files, { region: number, offset }, length, what));
      if (found !== undefined && !found.equals(digest))
        faults.add({
          file: region.path,
          offset,
          message: `${what} does not have the digest of its object ID`,
        });
      end = Math.max(end, offset + length);
    }
  }
}
