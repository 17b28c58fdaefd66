/** WCIFS layers written for Windows to take over. Runs in the job's thread; what is left on failure is the caller's to remove. */

import { existsSync } from 'node:fs';
import { win32 } from 'node:path';
import { importWcifsLayer } from '../../layers/import-layer.ts';
import type { JobControl } from '../job-thread.ts';
import { nameCulprit, openJobTar } from '../unpack-input.ts';
import { type AfterImport, completeImport, DeltaWriter } from './delta-writer.ts';
import type { CompleteWcifsJob, UnpackWcifsJob, WrittenWcifs } from './jobs.ts';
import { PlacedFiles } from './placed-files.ts';
import { openUtilityVm } from './utility-vm.ts';
import { WcifsLayers } from './wcifs-layers.ts';
import { openBackup } from './windows-calls.ts';

const NOTHING: AfterImport = { tombstones: [], links: [], directories: [] };

/** A base layer's files are written in place; those of others for ImportLayer to read, into `folder`. */
export async function unpackWcifs(job: UnpackWcifsJob, control: JobControl): Promise<WrittenWcifs> {
  const { layer, parents, importFrom, folder } = job;
  const calls = openBackup();
  const lower = job.lower === undefined ? undefined : new WcifsLayers(job.lower, parents, calls.facts);
  const delta = lower && new DeltaWriter(importFrom, calls.files, () => openUtilityVm(layer, parents, calls));
  const writer = delta ?? new PlacedFiles(layer, calls.files);
  try {
    const { files, bytes, warnings } = await importWcifsLayer(openJobTar(job, control), writer, {
      lower,
      spoolDirectory: folder,
      signal: control.signal,
    });
    control.checkpoint();
    writer.finish();
    const hasUtilityVm = delta?.hasUtilityVm ?? existsSync(win32.join(layer, 'UtilityVM\\Files'));
    return { files, bytes, warnings, hasUtilityVm, afterImport: delta?.afterImport ?? NOTHING };
  } catch (error) {
    throw nameCulprit(error, job, []);
  } finally {
    writer.close();
  }
}

export async function completeWcifs({ layer, parents, afterImport }: CompleteWcifsJob): Promise<undefined> {
  completeImport(afterImport, { layer, parents }, openBackup());
}
