/** `spec.policy` of an Image: which of a repository's tags is meant. */

import { RE2JS, RE2JSException } from 're2js';
import { Range, SemVer } from 'semver';
import { CimletError } from '../../errors.ts';

/** One of `semver` and `regex`. */
export interface TagPolicy {
  semver?: string | undefined;
  regex?: string | undefined;
  order?: 'numerical' | 'alphabetical' | undefined;
}

/**
 * The tag that the policy picks; undefined when none suits. `semver`: the highest version in the range, with or without
 * a `v`. `regex` (RE2 syntax, found anywhere in the tag): the last of those that match, ordered by what the first group
 * matched, or by the whole tag without groups; `numerical` leaves out what then is no number. Throws
 * `invalid-manifest` for a range or expression that is none.
 */
export function chooseTag(tags: readonly string[], policy: TagPolicy): string | undefined {
  if (policy.semver !== undefined) return highestVersion(tags, parseRange(policy.semver));
  if (policy.regex !== undefined) return lastMatch(tags, policy.regex, policy.order ?? 'alphabetical');
  throw new Error('a tag policy is one of semver and regex');
}

/** The policy as a message names it. */
export function describePolicy({ semver, regex, order = 'alphabetical' }: TagPolicy): string {
  return semver !== undefined
    ? `a version in ${JSON.stringify(semver)}`
    : `a tag like ${JSON.stringify(regex)}, the last in ${order} order`;
}

/** Of tags with the same version the last by name, so that it is always the same. */
function highestVersion(tags: readonly string[], range: Range): string | undefined {
  let best: { tag: string; version: SemVer } | undefined;
  for (const tag of [...tags].sort()) {
    const version = parseVersion(tag);
    if (version === undefined || !range.test(version)) continue;
    if (best === undefined || version.compare(best.version) >= 0) best = { tag, version };
  }
  return best?.tag;
}

/** Expressions come from manifests: RE2 takes linear time for all of them, where RegExp could block the agent. */
function lastMatch(
  tags: readonly string[],
  regex: string,
  order: 'numerical' | 'alphabetical',
): string | undefined {
  const pattern = compile(regex);
  let best: { tag: string; rank: string | bigint } | undefined;
  for (const tag of [...tags].sort()) {
    const matcher = pattern.matcher(tag);
    if (!matcher.find()) continue;
    const text = (matcher.groupCount() > 0 ? matcher.group(1) : tag) ?? '';
    const isNumber = /^\d+$/.test(text);
    if (order === 'numerical' && !isNumber) continue;
    const rank = order === 'numerical' ? BigInt(text) : text;
    if (best === undefined || rank >= best.rank) best = { tag, rank };
  }
  return best?.tag;
}

function compile(regex: string): RE2JS {
  try {
    return RE2JS.compile(regex);
  } catch (error) {
    if (!(error instanceof RE2JSException)) throw error;
    throw new CimletError(
      'invalid-manifest',
      `spec.policy.regex ${JSON.stringify(regex)}: ${error.message}`,
      {
        hint: 'expressions are RE2, which has neither look-around nor backreferences',
        cause: error,
      },
    );
  }
}

function parseRange(text: string): Range {
  try {
    return new Range(text);
  } catch (error) {
    throw new CimletError(
      'invalid-manifest',
      `spec.policy.semver ${JSON.stringify(text)} is no range of versions`,
      {
        hint: 'a range is such as ">=1.2 <2", "1.x" or "~1.4.0"',
        cause: error,
      },
    );
  }
}

function parseVersion(tag: string): SemVer | undefined {
  try {
    return new SemVer(tag);
  } catch (error) {
    if (error instanceof TypeError) return undefined;
    throw error;
  }
}
