/** The files of an image in its directory, given their names when it is finished. The `.cim` makes an image exist, so it comes last. */

import { renameSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { CimletError } from '../errors.ts';
import { syncDirectory } from './durable-files.ts';
import { attempt } from './faults.ts';
import { REGION_TYPES } from './format.ts';
import { fileSize, imageFileName, setFileNames } from './image.ts';
import { TEMPORARY_PREFIX } from './image-target.ts';

/**
 * Gives the files that `CimWriter.finish` left their final names, region and object ID files first, `.cim` last, durably. Doing it
 * again, or after a crash in between, is fine; files that exist under neither name are a `not-found` error.
 */
export function publishCim(directory: string, name: string, regionGuid: string): void {
  for (const file of setFileNames({ guid: regionGuid, count: REGION_TYPES.length }))
    publishFile(directory, file);
  syncDirectory(directory);
  publishFile(directory, imageFileName(name));
  syncDirectory(directory);
}

function publishFile(directory: string, file: string): void {
  const from = join(directory, TEMPORARY_PREFIX + file);
  const to = join(directory, file);
  if (fileSize(from) !== undefined) attempt(`publish ${to}`, () => renameSync(from, to));
  else if (fileSize(to) === undefined)
    throw new CimletError('not-found', `publish ${to}: neither it nor its temporary file exists`);
}

/** The name of an image that is not published yet, and the GUID that its other files are named by. */
export interface ImageNames {
  name: string;
  regionGuid: string;
}

/** Gives the files that `CimWriter.finish` left under temporary names those of another image; `publishCim` makes it durable. */
export function renameUnpublished(directory: string, from: ImageNames, to: ImageNames): void {
  const filesOf = ({ name, regionGuid }: ImageNames) => [
    ...setFileNames({ guid: regionGuid, count: REGION_TYPES.length }),
    imageFileName(name),
  ];
  const names = filesOf(to);
  for (const [index, file] of filesOf(from).entries()) {
    const target = join(directory, `${TEMPORARY_PREFIX}${names[index]}`);
    attempt(`name ${target}`, () => renameSync(join(directory, TEMPORARY_PREFIX + file), target));
  }
}

/** Gives a container file that was written anew its final name, durably; doing it again is fine. */
export function publishContainer(file: string): void {
  publishFile(dirname(file), basename(file));
  syncDirectory(dirname(file));
}
