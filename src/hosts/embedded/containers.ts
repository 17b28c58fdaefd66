/** Containers from finished to committed: given their name, sealed, ended with a footer. Runs in the worker. */

import { statSync } from 'node:fs';
import { basename } from 'node:path';
import { openContainer } from '../../cim/container.ts';
import { sha256 } from '../../cim/container-format.ts';
import type { FinishedCim } from '../../cim/image-writer.ts';
import { publishContainer } from '../../cim/publish.ts';
import { sealContainer, verifySeal } from '../../cim/seal.ts';
import { addVhdFooter } from '../../cim/vhd-footer.ts';
import { CimletError } from '../../errors.ts';
import { hexOf } from '../identity.ts';
import type { ShownCim, WrittenContainer } from './jobs.ts';

/** What a container's root hash is called outside of src/cim. */
export function rootHashName(hex: string): string {
  return `sha256:${hex}`;
}

/** Completes the container `file` that a writer has finished under its temporary name. */
export async function completeContainer(
  file: string,
  { fileCount }: FinishedCim,
  options: { seal: boolean; vhdFooter: boolean; warnings: string[]; signal: AbortSignal },
): Promise<WrittenContainer> {
  const { seal, vhdFooter, warnings, signal } = options;
  publishContainer(file);
  const sealed = seal ? await sealContainer(file, { signal }) : undefined;
  if (vhdFooter) addVhdFooter(file);
  const { size } = statSync(file);
  return {
    cimFiles: [{ name: basename(file), size }],
    bytes: size,
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
