/** Containers from finished to committed: given their name, sealed, ended with a footer. Runs in the worker. */

import { statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { openContainer } from '../../cim/container.ts';
import { sha256 } from '../../cim/container-format.ts';
import { syncDirectory, writeDurable } from '../../cim/durable-files.ts';
import type { FinishedCim } from '../../cim/image-writer.ts';
import { publishContainer } from '../../cim/publish.ts';
import { sealContainer } from '../../cim/seal.ts';
import { addVhdFooter } from '../../cim/vhd-footer.ts';
import { CimletError, isErrorCode } from '../../errors.ts';
import { hexOf } from '../identity.ts';
import type { StoredFile } from '../records.ts';
import type { ShownCim, SourceContainer, WrittenContainer } from './jobs.ts';
import { checkSeal, keepSealed } from './seal-check.ts';

export interface Completion {
  seal: boolean;
  vhdFooter: boolean;
  /** The file beside a sealed container that holds its root hash in bare hexadecimal, by the name containerd gives it. */
  checksumName: 'integrity_checksum' | 'merged_integrity_checksum';
  warnings: string[];
  signal: AbortSignal;
}

/** Completes the container `file` that a writer has finished under its temporary name. */
export async function completeContainer(
  file: string,
  { fileCount }: FinishedCim,
  { seal, vhdFooter, checksumName, warnings, signal }: Completion,
): Promise<WrittenContainer> {
  publishContainer(file);
  const sealed = seal ? await sealContainer(file, { signal }) : undefined;
  if (vhdFooter) addVhdFooter(file);
  const cimFiles: StoredFile[] = [{ name: basename(file), size: statSync(file).size }];
  if (sealed !== undefined) {
    const checksum = Buffer.from(hexOf(sealed.rootHash));
    writeDurable(join(dirname(file), checksumName), checksum);
    await keepSealed({ path: file, rootHash: sealed.rootHash });
    syncDirectory(dirname(file));
    cimFiles.push({ name: checksumName, size: checksum.length });
  }
  return {
    cimFiles,
    bytes: cimFiles.reduce((sum, { size }) => sum + size, 0),
    files: fileCount,
    warnings,
    content: contentOf(file),
    rootHash: sealed?.rootHash,
  };
}

/** A container's header has its directory's digest, which has the digests of all but data, and of that the object IDs'. */
function contentOf(file: string): string {
  const container = openContainer(file);
  try {
    return sha256(container.headerPage).toString('hex');
  } finally {
    container.close();
  }
}

/**
 * Throws `failed-precondition` for the first container that isn't what was sealed: it has to be built anew first, which the next plan does,
 * since what was found is kept.
 */
export async function verifySeals({ seals }: ShownCim, signal: AbortSignal): Promise<void> {
  for (const container of seals) {
    const { path, rootHash } = container;
    const { fault } = await checkSeal(container, signal);
    if (fault !== undefined)
      throw new CimletError(
        'failed-precondition',
        `verify seal: ${path}: ${fault}; the root hash should be ${rootHash}`,
        { hint: rebuildHint(path) },
      );
  }
}

/** Reads from containers. That one turns out not to be what was sealed is `failed-precondition` and kept, as in `verifySeals`. */
export async function readingSealed<T>(
  sources: readonly SourceContainer[],
  signal: AbortSignal,
  read: () => T | Promise<T>,
): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (!isErrorCode(error, 'corrupt')) throw error;
    const culprit = sources.find(({ path }) => error.message.includes(path));
    if (culprit?.rootHash === undefined) throw error;
    const { path, rootHash } = culprit;
    const { fault } = await checkSeal({ path, rootHash }, signal);
    if (fault === undefined) throw error;
    throw new CimletError('failed-precondition', error.message, { hint: rebuildHint(path), cause: error });
  }
}

function rebuildHint(path: string): string {
  return `${path} was changed after it was sealed: apply again, and it is built anew`;
}
