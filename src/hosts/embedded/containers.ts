/** Containers from finished to committed: given their name, sealed, ended with a footer. Runs in the worker. */

import { statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { openContainer } from '../../cim/container.ts';
import { sha256 } from '../../cim/container-format.ts';
import { syncDirectory, writeDurable } from '../../cim/durable-files.ts';
import type { FinishedCim } from '../../cim/image-writer.ts';
import { publishContainer } from '../../cim/publish.ts';
import { sealContainer, verifySeal } from '../../cim/seal.ts';
import { addVhdFooter } from '../../cim/vhd-footer.ts';
import { CimletError } from '../../errors.ts';
import { hexOf } from '../identity.ts';
import type { ShownCim, WrittenContainer } from './jobs.ts';
import type { StoredFile } from './records.ts';

/** What a container's root hash is called outside of src/cim. */
export function rootHashName(hex: string): string {
  return `sha256:${hex}`;
}

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
    const checksum = Buffer.from(sealed.rootHash);
    writeDurable(join(dirname(file), checksumName), checksum);
    syncDirectory(dirname(file));
    cimFiles.push({ name: checksumName, size: checksum.length });
  }
  return {
    cimFiles,
    bytes: cimFiles.reduce((sum, { size }) => sum + size, 0),
    files: fileCount,
    warnings,
    content: contentOf(file),
    rootHash: sealed && rootHashName(sealed.rootHash),
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

/** Throws `corrupt` for the first byte that isn't what was sealed. */
export async function verifySeals({ seals }: ShownCim, signal: AbortSignal): Promise<void> {
  for (const { path, rootHash } of seals) {
    const [fault, ...others] = await verifySeal(path, { expected: hexOf(rootHash), signal });
    if (fault === undefined) continue;
    const more = others.length === 0 ? '' : `, and ${others.length} more`;
    throw new CimletError(
      'corrupt',
      `verify seal: ${fault.file}: offset 0x${fault.offset.toString(16)}: ${fault.message}; the root hash should be ${rootHash}${more}`,
      { hint: `${path} was changed after it was sealed: remove it and apply again` },
    );
  }
}
