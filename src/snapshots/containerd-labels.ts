/**
 * Labels by which clients of containerd's Windows snapshotters say how a scratch is to be, as those understand them
 * (plugins/snapshots/windows and lcow). Labels of other namespaces mean nothing here.
 */

import { CimletError, isErrorCode } from '../errors.ts';
import type { ScratchOptions } from '../hosts/host.ts';

const SNAPSHOT = 'containerd.io/snapshot/';
const SIZE_BYTES = `${SNAPSHOT}windows/rootfs.sizebytes`;
/** Older than the other, which goes before it. */
const SIZE_GB = `${SNAPSHOT}io.microsoft.container.storage.rootfs.size-gb`;
const LOCATION = `${SNAPSHOT}io.microsoft.container.storage.rootfs.location`;
const REUSE = `${SNAPSHOT}io.microsoft.container.storage.reuse-scratch`;
/** Part of the name of the snapshot whose scratch is used as well. */
export const OWNER = `${SNAPSHOT}io.microsoft.owner.key`;
/** Whatever its value. */
export const UTILITY_VM = `${SNAPSHOT}io.microsoft.vm.storage.scratch`;

const LABELS = [SIZE_BYTES, SIZE_GB, LOCATION, REUSE, OWNER, UTILITY_VM];

const GIB = 2 ** 30;

/**
 * What `options` and, where they say nothing, labels ask of an active snapshot's scratch; undefined for one like any other.
 * `names`: of the active snapshots that there are. Throws `invalid-manifest` for a size that is none, `not-found` and
 * `failed-precondition` for an owner that isn't one snapshot.
 */
export function scratchAskedFor(
  options: ScratchOptions = {},
  labels: Readonly<Record<string, string>>,
  names: readonly string[],
  operation: string,
): ScratchOptions | undefined {
  const said = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const all = { ...askedByLabels(labels, names, operation), ...said };
  return Object.keys(all).length === 0 ? undefined : all;
}

/** Has an error about a scratch say which labels asked for it: nobody may know of them. Others are as they were. */
export function namingLabels(error: unknown, labels: Readonly<Record<string, string>>): unknown {
  if (!isErrorCode(error, 'invalid-manifest', 'unsupported-host')) return error;
  const asking = Object.keys(labels).filter((label) => LABELS.includes(label));
  if (asking.length === 0) return error;
  const whose = `the scratch is asked for by ${asking.map((label) => `label ${label}`).join(' and ')}`;
  const hint = error.hint === undefined ? whose : `${error.hint}; ${whose}`;
  return new CimletError(error.code, error.message, { hint, cause: error });
}

function askedByLabels(
  labels: Readonly<Record<string, string>>,
  names: readonly string[],
  operation: string,
): ScratchOptions {
  const { [LOCATION]: location, [OWNER]: owner } = labels;
  if (labels[REUSE] === 'true' && owner !== undefined && owner !== '')
    return { shareWith: ownerNamed(owner, names, operation) };
  const bytes = sizeOf(labels, SIZE_BYTES, 1, operation) ?? sizeOf(labels, SIZE_GB, GIB, operation);
  return {
    ...(bytes === undefined ? {} : { bytes }),
    ...(location === undefined || location === '' ? {} : { location }),
    ...(labels[UTILITY_VM] === undefined ? {} : { utilityVM: true }),
  };
}

/** Zero is what clients say that don't care. */
function sizeOf(
  labels: Readonly<Record<string, string>>,
  label: string,
  unit: number,
  operation: string,
): number | undefined {
  const text = labels[label];
  if (text === undefined) return undefined;
  const bytes = /^\d+$/.test(text) ? Number(text) * unit : Number.NaN;
  if (Number.isSafeInteger(bytes)) return bytes === 0 ? undefined : bytes;
  throw new CimletError(
    'invalid-manifest',
    `${operation}: label ${label}: ${JSON.stringify(text)} is no size`,
    {
      hint: unit === 1 ? 'write a number of bytes' : 'write a number of GiB',
    },
  );
}

function ownerNamed(owner: string, names: readonly string[], operation: string): string {
  if (names.includes(owner)) return owner;
  const [found, ...others] = names.filter((name) => name.includes(owner));
  const refuse = (code: 'not-found' | 'failed-precondition', why: string) =>
    new CimletError(code, `${operation}: label ${OWNER}: ${why} has ${JSON.stringify(owner)} in its name`);
  if (found === undefined) throw refuse('not-found', 'no active snapshot');
  if (others.length > 0) throw refuse('failed-precondition', 'more than one active snapshot');
  return found;
}
