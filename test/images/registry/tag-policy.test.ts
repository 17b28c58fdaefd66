/** Which tag `spec.policy` picks. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { chooseTag } from '../../../src/images/registry/tag-policy.ts';

describe('a range of versions', () => {
  it('picks the highest in it, with or without a v, and no prerelease unless it asks for one', () => {
    const tags = ['1.2.0', 'v1.10.0', '1.9.9', '2.0.0', '1.11.0-rc.1', 'latest', '1.12', 'ltsc2025'];
    expect(chooseTag(tags, { semver: '>=1.2 <2' })).toBe('v1.10.0');
    expect(chooseTag(tags, { semver: '>=1.11.0-0 <2' })).toBe('1.11.0-rc.1');
    expect(chooseTag(tags, { semver: '3.x' })).toBeUndefined();
    expect(chooseTag([], { semver: '*' })).toBeUndefined();
  });

  it('picks the same whatever the order of the list', () => {
    const version = fc
      .tuple(fc.constantFrom('', 'v'), fc.nat(3), fc.nat(12), fc.nat(3))
      .map(([v, ...parts]) => v + parts.join('.'));
    fc.assert(
      fc.property(fc.array(version), fc.nat(3), (tags, major) => {
        const policy = { semver: `^${major}` };
        const picked = chooseTag(tags, policy);
        expect(chooseTag([...tags].reverse(), policy)).toBe(picked);
        const ranks = tags
          .map((tag) => tag.replace('v', '').split('.').map(Number))
          .filter(([first]) => first === major)
          .map(([, minor = 0, patch = 0]) => minor * 100 + patch)
          // ^0 is what is below 1.0.0.
          .sort((a, b) => b - a);
        const [, minor = 0, patch = 0] = (picked ?? '').replace('v', '').split('.').map(Number);
        expect(picked === undefined ? undefined : minor * 100 + patch).toBe(ranks[0]);
      }),
    );
  });

  it('is refused when it is none', () => {
    expect(() => chooseTag(['1.0.0'], { semver: 'newest' })).toThrow(
      expect.objectContaining({ code: 'invalid-manifest', message: expect.stringContaining('"newest"') }),
    );
  });
});

describe('a regular expression', () => {
  const builds = ['main-9', 'main-10', 'main-x', 'dev-11', 'main-0100'];

  it('orders what its group matched, or the whole tag', () => {
    expect(chooseTag(builds, { regex: '^main-(.+)$' })).toBe('main-x');
    expect(chooseTag(builds, { regex: '^main-(.+)$', order: 'numerical' })).toBe('main-0100');
    expect(chooseTag(builds, { regex: '^main-(\\d{1,2})$', order: 'numerical' })).toBe('main-10');
    expect(chooseTag(builds, { regex: '^main-\\d' })).toBe('main-9');
    expect(chooseTag(['20250101', '20251231', '9'], { regex: '.*', order: 'numerical' })).toBe('20251231');
    expect(chooseTag(builds, { regex: '^prod-' })).toBeUndefined();
  });

  it('takes linear time, whatever it is', () => {
    const tag = `${'a'.repeat(127)}!`;
    expect(chooseTag([tag], { regex: '^(a+)+$' })).toBeUndefined();
  });

  it('is refused where it is none, or not RE2', () => {
    for (const regex of ['(', '(?=x)', '\\1'])
      expect(() => chooseTag(['x'], { regex })).toThrow(
        expect.objectContaining({
          code: 'invalid-manifest',
          message: expect.stringContaining(regex.slice(0, 1)),
        }),
      );
  });
});
