/** A CIM as something Linux can show: an EROFS image over its data regions, or an extracted tree. Runs in the worker. */

import { rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { type CimReader, openCim } from '../../cim/reader.ts';
import { writeErofs } from '../../erofs/writer.ts';
import { syncFilesystem } from '../../native/linux/sync.ts';
import { ensureDirectory, syncDirectory } from '../directories.ts';
import type { JobControl } from '../job-thread.ts';
import { chooseDevices, openCimView } from './cim-view.ts';
import { verifySeals } from './containers.ts';
import { extractTree } from './extract-tree.ts';
import type { ExtractJob, JobResults, ShownCim, ViewJob } from './jobs.ts';
import { isViewImage, temporaryName, VIEW_VOLUME_NAME } from './view-image.ts';

/**
 * An image that is there and right is taken as it is. Not so of what is sealed: of that everything shown must come from
 * what has just been verified.
 */
export async function writeView(job: ViewJob, control: JobControl): Promise<JobResults['view']> {
  const { image, uuid } = job;
  const { signal, checkpoint } = control;
  return withCim(job.cim, signal, async (cim) => {
    const devices = chooseDevices(cim);
    if (job.cim.seals.length === 0 && (await isViewImage(image, uuid))) return { deviceFiles: devices.files };
    const view = openCimView(cim, { uuid, volumeName: VIEW_VOLUME_NAME, checkpoint, devices });
    const temporary = temporaryName(image);
    await ensureDirectory(dirname(image));
    await rm(temporary, { force: true });
    await writeErofs(view, temporary, {
      signal,
      onInode: (done, total) => control.progress({ phase: 'mounting', done, total }),
    });
    await rename(temporary, image);
    await syncDirectory(dirname(image));
    return { deviceFiles: devices.files };
  });
}

export async function extractView(job: ExtractJob, control: JobControl): Promise<JobResults['extract']> {
  const { uuid, target } = job;
  return withCim(job.cim, control.signal, async (cim) => {
    const { checkpoint } = control;
    const view = openCimView(cim, { uuid, volumeName: VIEW_VOLUME_NAME, checkpoint });
    const result = await extractTree(view, target, control);
    // Renamed into place next: a crash must not leave a tree of empty files that counts as whole.
    await syncFilesystem(target);
    return result;
  });
}

/** Opens the CIM that shows a chain, verified, for as long as `use` takes. */
export async function withCim<T>(
  shown: ShownCim,
  signal: AbortSignal,
  use: (cim: CimReader) => T | Promise<T>,
): Promise<T> {
  const { path, sources, seals } = shown;
  await verifySeals(shown, signal);
  // Read through the very seal that was verified: the file may have been replaced since.
  const seal = seals.find((each) => each.path === path);
  const cim = openCim(path, {
    sources: sources.length === 0 ? undefined : sources,
    rootHash: seal?.rootHash,
  });
  try {
    return await use(cim);
  } finally {
    cim.close();
  }
}
