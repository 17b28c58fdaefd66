/**
 * Whether a sealed container still is what was sealed. Hashing it takes long, so what was found is kept in `check.json` beside it, with
 * what tells this file from a changed one: its size and the time of its last change (ctime, which no program can set back).
 */

import { readFile, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { writeDurable } from '../../cim/durable-files.ts';
import { countFaults } from '../../cim/faults.ts';
import { verifySeal } from '../../cim/seal.ts';
import { classify, isErrorCode } from '../../errors.ts';
import { type Abortable, checkDisk } from '../../ext4/check.ts';
import { hexOf } from '../identity.ts';

export interface SealedContainer {
  path: string;
  /** That its seal must have. */
  rootHash: string;
}

export interface SealCheck {
  formatVersion: 1;
  rootHash: string;
  /** Bytes, and ctime in nanoseconds. */
  stamp: string;
  /** What is wrong with it; absent when nothing is. */
  fault?: string | undefined;
}

/** Undefined for a file that is gone. */
export async function stampOf(path: string): Promise<string | undefined> {
  try {
    const { size, ctimeNs } = await stat(path, { bigint: true });
    return `${size} ${ctimeNs}`;
  } catch (error) {
    return undefinedIfGone(error, `look at ${path}`);
  }
}

/** What was found last; undefined when nothing readable was kept. */
export async function readCheck({ path }: SealedContainer): Promise<SealCheck | undefined> {
  const file = checkPath(path);
  try {
    const check: Partial<SealCheck> | null = JSON.parse(await readFile(file, 'utf8'));
    return check?.formatVersion === 1 ? (check as SealCheck) : undefined;
  } catch (error) {
    // A torn one is as good as none: the container is verified again.
    if (error instanceof SyntaxError) return undefined;
    return undefinedIfGone(error, `read ${file}`);
  }
}

/** Verifies the seal, every byte of it. Keeps nothing. Throws only for what can't be read at all, and `cancelled`. */
export async function verifyContainerSeal(
  { path, rootHash }: SealedContainer,
  signal: AbortSignal,
): Promise<SealCheck> {
  const stamp = (await stampOf(path)) ?? '';
  const faults = await verifySeal(path, { expected: rootHash, signal });
  const [fault] = faults;
  const more = faults.length > 1 ? `, and ${countFaults(faults) - 1} more` : '';
  return {
    formatVersion: 1,
    rootHash,
    stamp,
    fault: fault && `offset 0x${fault.offset.toString(16)}: ${fault.message}${more}`,
  };
}

/** The same of a disk: all that its dm-verity covers. */
export async function verifyDiskSeal(
  { path, rootHash }: SealedContainer,
  signal: Abortable,
): Promise<SealCheck> {
  const stamp = (await stampOf(path)) ?? '';
  const { faults } = checkDisk(path, { rootHash: hexOf(rootHash), signal });
  const [fault] = faults;
  const more = faults.length > 1 ? `, and ${faults.length - 1} more` : '';
  return { formatVersion: 1, rootHash, stamp, fault: fault && `${fault.message}${more}` };
}

/** Verifies the seal, and keeps what was found for whoever looks next. */
export async function checkSeal(container: SealedContainer, signal: AbortSignal): Promise<SealCheck> {
  const check = await verifyContainerSeal(container, signal);
  keepCheck(container.path, check);
  return check;
}

/** Keeps that a container was sealed just now. */
export async function keepSealed({ path, rootHash }: SealedContainer): Promise<void> {
  keepCheck(path, { formatVersion: 1, rootHash, stamp: (await stampOf(path)) ?? '' });
}

function keepCheck(path: string, check: SealCheck): void {
  writeDurable(checkPath(path), Buffer.from(`${JSON.stringify(check, undefined, 2)}\n`));
}

function checkPath(container: string): string {
  return join(dirname(container), 'check.json');
}

function undefinedIfGone(error: unknown, operation: string): undefined {
  const classified = classify(error, operation);
  if (!isErrorCode(classified, 'not-found', 'failed-precondition')) throw classified;
}
