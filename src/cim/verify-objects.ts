/** The regions of an image and their object IDs, every digest recomputed. */

import { type FaultList, withBase } from './faults.ts';
import { RegionType } from './format.ts';
import { ObjectIdFile } from './object-ids.ts';
import { digestStored, type Region, type RegionFiles } from './region-files.ts';

/** A region's header, and its object IDs with every digest. */
export function verifyRegion(region: Region, number: number, files: RegionFiles, faults: FaultList): void {
  if (faults.isBroken(region.path)) return;
  const stored = faults.collect(() => files.readObjectIds(number));
  if (stored === undefined) return;
  if (region.type > RegionType.smallData)
    faults.add(files.faultAt({ region: number, offset: 34 }, `region type ${region.type} is unknown`));
  const { path, base, bytes } = stored;
  const idFault = (offset: number, message: string) =>
    faults.add({ file: path, offset: base + offset, message });
  if (bytes === undefined) {
    idFault(0, 'the object ID file is missing; the image reads without it');
    return;
  }
  const ids = faults.collect(() => withBase(base, () => new ObjectIdFile(path, bytes)));
  if (ids === undefined) return;
  if (ids.header.type !== region.type)
    idFault(34, `object IDs of region type ${ids.header.type}, not ${region.type}`);
  const entries = Array.from({ length: ids.count }, (_, i) => ids.entry(i));
  entries.forEach((entry, i) => {
    const before = entries[i - 1];
    if (before !== undefined && before.digest.compare(entry.digest) > 0)
      idFault(entry.position, 'an object ID is out of order');
  });
  // By offset: what is on disk is read once, in order, however the entries lie.
  let end = 0;
  for (const { length, digest, offset, position } of entries.sort((a, b) => a.offset - b.offset)) {
    const what = `the object of ${length} bytes at 0x${offset.toString(16)}`;
    if (offset < end) idFault(position, `${what} overlaps another`);
    else {
      const at = { region: number, offset };
      const found = faults.collect(() => digestStored(files, at, length, what));
      if (found !== undefined && !found.equals(digest))
        faults.add(files.faultAt(at, `${what} does not have the digest of its object ID`));
      end = Math.max(end, offset + length);
    }
  }
}
