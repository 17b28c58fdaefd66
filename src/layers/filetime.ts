/** FILETIMEs: 100 ns units since 1601-01-01 UTC. */

/** 1970-01-01 as a FILETIME. */
export const UNIX_EPOCH_FILETIME = 116_444_736_000_000_000n;
const MAX_FILETIME = (1n << 63n) - 1n;

/** Nanoseconds since 1970 as a FILETIME, rounded down; undefined when before 1601 or beyond the year 30828. */
export function filetimeFromUnix(nanoseconds: bigint): bigint | undefined {
  const units = nanoseconds / 100n - (nanoseconds % 100n < 0n ? 1n : 0n);
  const filetime = units + UNIX_EPOCH_FILETIME;
  return filetime < 0n || filetime > MAX_FILETIME ? undefined : filetime;
}

/** A FILETIME as nanoseconds since 1970. */
export function unixFromFiletime(filetime: bigint): bigint {
  return (filetime - UNIX_EPOCH_FILETIME) * 100n;
}
