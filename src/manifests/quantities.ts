/** Durations (`1h30m`) and sizes (`20Gi`) as manifests write them; the schemas check the same patterns. */

import { CimletError } from '../errors.ts';

const MILLISECONDS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const DURATION = /^(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+$/;
const DURATION_PARTS = /(\d+(?:\.\d+)?)(ms|s|m|h|d)/g;

/** Milliseconds of a duration. Throws `invalid-manifest` for anything else. */
export function parseDuration(text: string): number {
  if (!DURATION.test(text))
    throw new CimletError('invalid-manifest', `${JSON.stringify(text)} is no duration such as 1h30m`);
  let total = 0;
  for (const [, amount, unit] of text.matchAll(DURATION_PARTS)) {
    total += Number(amount) * (MILLISECONDS[unit ?? ''] ?? Number.NaN);
  }
  return total;
}

const BYTES: Record<string, number> = {
  '': 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
};
const SIZE = /^([1-9]\d*)(k|M|G|T|Ki|Mi|Gi|Ti|)$/;

/** Bytes of a size. Throws `invalid-manifest` for anything else, and for more than 2^53 - 1. */
export function parseSize(size: string | number): number {
  const match = SIZE.exec(String(size));
  const bytes = match === null ? Number.NaN : Number(match[1]) * (BYTES[match[2] ?? ''] ?? Number.NaN);
  if (!Number.isSafeInteger(bytes)) {
    throw new CimletError('invalid-manifest', `${JSON.stringify(size)} is no size such as 512Mi or 20Gi`);
  }
  return bytes;
}
