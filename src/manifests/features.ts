/**
 * What the API has and this release doesn't do yet, as data. Such fields validate; a plan says of each that it isn't
 * supported yet instead of ignoring it. A row goes when its behaviour is built.
 */

import type { FieldPath } from './field-path.ts';
import type { Kind } from './resources.ts';

interface PendingFeature {
  kinds: readonly Kind[];
  /** Keys below spec; `*` stands for every item of a list. */
  field: readonly string[];
  /** Values that need nothing unbuilt; every value does when omitted. */
  supported?: readonly unknown[];
}

const PENDING: readonly PendingFeature[] = [];

/** Fields of a valid spec whose behaviour isn't built yet, in the order of the table above. */
export function findUnsupported(kind: Kind, spec: unknown): FieldPath[] {
  return PENDING.filter(({ kinds }) => kinds.includes(kind)).flatMap(({ field, supported }) =>
    matches(spec, field, ['spec'])
      .filter(({ value }) => !(supported ?? []).includes(value))
      .map(({ path }) => path),
  );
}

function matches(
  value: unknown,
  field: readonly string[],
  path: FieldPath,
): { path: FieldPath; value: unknown }[] {
  const [step, ...rest] = field;
  if (step === undefined) return [{ path, value }];
  if (step === '*') {
    return Array.isArray(value) ? value.flatMap((item, index) => matches(item, rest, [...path, index])) : [];
  }
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, step)) return [];
  return matches((value as Record<string, unknown>)[step], rest, [...path, step]);
}
