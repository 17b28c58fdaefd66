/** Damage in what is sealed, found without hashing what hasn't changed since it was verified. */

import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { classify, isErrorCode } from '../../errors.ts';
import type { ChainId } from '../host.ts';
import { hexOf } from '../identity.ts';
import { type Layout, layerFolder, mergeFolder, snapshotPath } from '../layout.ts';
import type { LayerRecord, MergeRecord, StoredFile } from '../records.ts';
import { LAYER_DISK } from '../unpack-linux.ts';
import { runJob } from './run-job.ts';
import { readCheck, type SealCheck, type SealedContainer, stampOf } from './seal-check.ts';

export interface SealFault {
  code: 'file-corrupt';
  message: string;
  path: string;
}

/** By path, of files that changed after what is kept on disk of them, which who only looks may not write. */
const verified = new Map<string, SealCheck>();

/** Whether a layer still is what was sealed, if it was; for one whose files are all there. */
export async function layerSealFaults(
  layout: Layout,
  { layer, cimFiles }: LayerRecord,
  signal: AbortSignal,
): Promise<SealFault[]> {
  return sealFaults(snapshotPath(layout, layerFolder(layer)), cimFiles, layer.rootHash, signal);
}

/** The same of a merged CIM. */
export async function mergeSealFaults(
  layout: Layout,
  top: ChainId,
  { merge, cimFiles }: MergeRecord,
  signal: AbortSignal,
): Promise<SealFault[]> {
  return sealFaults(snapshotPath(layout, mergeFolder(top)), cimFiles, merge.rootHash, signal);
}

/** `files` are the container and the file that says its root hash. */
async function sealFaults(
  folder: string,
  files: readonly StoredFile[],
  rootHash: string | undefined,
  signal: AbortSignal,
): Promise<SealFault[]> {
  if (rootHash === undefined) return [];
  const faults: SealFault[] = [];
  for (const [index, { name }] of files.entries()) {
    const path = join(folder, name);
    const fault =
      index === 0 ? await containerFault({ path, rootHash }, signal) : await checksumFault(path, rootHash);
    if (fault !== undefined)
      faults.push({ code: 'file-corrupt', message: `${name} is not what was sealed: ${fault}`, path });
  }
  return faults;
}

/** A container that isn't the one verified last is verified, in a thread. */
async function containerFault(container: SealedContainer, signal: AbortSignal): Promise<string | undefined> {
  const { path, rootHash } = container;
  const stamp = await stampOf(path);
  const known = [verified.get(path), await readCheck(container)].find(
    (check) => check?.stamp === stamp && check?.rootHash === rootHash,
  );
  if (known !== undefined) return known.fault;
  try {
    const kind = basename(path) === LAYER_DISK ? 'verify-disk' : 'verify';
    const check = await runJob<'verify' | 'verify-disk'>({ kind, container }, { signal });
    verified.set(path, check);
    return check.fault;
  } catch (error) {
    return undefinedIfGone(error);
  }
}

async function checksumFault(path: string, rootHash: string): Promise<string | undefined> {
  try {
    return (await readFile(path, 'latin1')) === hexOf(rootHash) ? undefined : 'it says another root hash';
  } catch (error) {
    return undefinedIfGone(classify(error, `read ${path}`));
  }
}

/** Replaced or removed meanwhile, which the next look sees. */
function undefinedIfGone(error: unknown): undefined {
  if (!isErrorCode(error, 'not-found')) throw error;
}
