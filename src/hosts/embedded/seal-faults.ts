/** Damage in sealed containers, found without hashing what hasn't changed since it was verified. */

import { basename } from 'node:path';
import { isErrorCode } from '../../errors.ts';
import { runJob } from './run-job.ts';
import { readCheck, type SealCheck, type SealedContainer, stampOf } from './seal-check.ts';

export interface SealFault {
  code: 'file-corrupt';
  message: string;
  path: string;
}

/** By path, of files that changed after what is kept on disk of them, which who only looks may not write. */
const verified = new Map<string, SealCheck>();

/** At most one. A container that isn't the one verified last is verified, in a thread. */
export async function sealFaults(container: SealedContainer, signal: AbortSignal): Promise<SealFault[]> {
  const { path } = container;
  const stamp = await stampOf(path);
  const isCurrent = (check: SealCheck | undefined): check is SealCheck =>
    check?.stamp === stamp && check?.rootHash === container.rootHash;
  const known = [verified.get(path), await readCheck(container)].find(isCurrent);
  const { fault } = known ?? (await verify(container, signal));
  if (fault === undefined) return [];
  return [{ code: 'file-corrupt', message: `${basename(path)} is not what was sealed: ${fault}`, path }];
}

async function verify(container: SealedContainer, signal: AbortSignal): Promise<Pick<SealCheck, 'fault'>> {
  try {
    const check = await runJob<'verify'>({ kind: 'verify', container }, { signal });
    verified.set(container.path, check);
    return check;
  } catch (error) {
    // Replaced or removed meanwhile, which the next look sees.
    if (isErrorCode(error, 'not-found')) return {};
    throw error;
  }
}
