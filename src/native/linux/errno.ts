/** errno -> typed error, once. */

import { getSystemErrorMessage, getSystemErrorName } from 'node:util';
import { CimletError, classify, type ErrorCode } from '../../errors.ts';

/** errno values that callers compare with, the same on every Linux architecture Node runs on. */
export const Errno = {
  EPERM: 1,
  E2BIG: 7,
  EAGAIN: 11,
  ENOTBLK: 15,
  EBUSY: 16,
  ENOSPC: 28,
  ERANGE: 34,
  ENODATA: 61,
  ENOTSUP: 95,
} as const;

const CODES: Readonly<Record<string, ErrorCode>> = {
  ENOSYS: 'unsupported-host',
  ENODEV: 'unsupported-host',
  ENOTBLK: 'unsupported-host',
  ENOTSUP: 'unsupported-host',
  EOPNOTSUPP: 'unsupported-host',
};

/** `EBUSY` for 16, and so on. */
export function errnoName(errno: number): string {
  // libuv has no name for this one.
  return errno === Errno.ENOTBLK ? 'ENOTBLK' : getSystemErrorName(-errno);
}

/** The error of a failed call. `operation` names what was being done and to what; `detail` is what the kernel said. */
export function systemError(
  operation: string,
  errno: number,
  { detail, hint }: { detail?: string | undefined; hint?: string | undefined } = {},
): CimletError {
  const name = errnoName(errno);
  const text = errno === Errno.ENOTBLK ? 'block device required' : getSystemErrorMessage(-errno);
  const reason = detail === undefined ? text : `${text}; the kernel says: ${detail}`;
  const cause = Object.assign(new Error(`${name}: ${text}`), { code: name, errno: -errno });
  const known = classify(cause, operation);
  const code = known instanceof CimletError ? known.code : (CODES[name] ?? 'native');
  return new CimletError(code, `${operation}: ${reason} (${name})`, { hint, cause });
}
