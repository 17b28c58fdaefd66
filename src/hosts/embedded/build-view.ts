/** A CIM as something Linux can show: an EROFS image over its region files, or an extracted tree. Runs in the worker. */

import { rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { openCim } from '../../cim/reader.ts';
import { writeErofs } from '../../erofs/writer.ts';
import { syncFilesystem } from '../../native/linux/sync.ts';
import { openCimView } from './cim-view.ts';
import { syncDirectory } from './directories.ts';
import { extractTree } from './extract-tree.ts';
import type { ExtractJob, JobControl, JobResults, ViewJob } from './jobs.ts';
import { temporaryName, VIEW_VOLUME_NAME } from './view-image.ts';

export async function writeView(job: ViewJob, control: JobControl): Promise<JobResults['view']> {
  const cim = openCim(job.cim);
  const temporary = temporaryName(job.image);
  try {
    const view = openCimView(cim, { ...job, volumeName: VIEW_VOLUME_NAME, checkpoint: control.checkpoint });
    await rm(temporary, { force: true });
    const { bytes } = await writeErofs(view, temporary, {
      signal: control.signal,
      onInode: (done, total) => control.progress({ phase: 'mounting', done, total }),
    });
    await rename(temporary, job.image);
    await syncDirectory(dirname(job.image));
    return { bytes, deviceFiles: view.deviceFiles };
  } finally {
    cim.close();
  }
}

export async function extractView(job: ExtractJob, control: JobControl): Promise<JobResults['extract']> {
  const cim = openCim(job.cim);
  try {
    const view = openCimView(cim, { ...job, volumeName: VIEW_VOLUME_NAME, checkpoint: control.checkpoint });
    const result = await extractTree(view, job.target, control);
    // Renamed into place next: a crash must not leave a tree of empty files that counts as whole.
    await syncFilesystem(job.target);
    return result;
  } finally {
    cim.close();
  }
}
