import { expect, it } from 'vitest';
import { collectSources } from '../../src/agent/declared-sources.ts';
import type { Source } from '../../src/sources/source.ts';
import type { ResourceRecord } from '../../src/state/records.ts';
import { image } from '../reconciler/support.ts';

const followed = (name: string, isSuspended = false) => ({
  source: { name } as Source,
  id: name,
  prune: true,
  suspended: isSuspended ? { reason: 'a test' } : undefined,
});
const recorded = (name: string, sourceId: string) =>
  ({ kind: 'Image', name, prune: true, sourceId, revision: 'first' }) as ResourceRecord;
const names = ['a', 'b', 'c', 'd'];

/** What comes of two sources, all of whose images were declared by `one` before. */
const collect = (one: string[], two: string[], { isTwoSuspended = false } = {}) =>
  collectSources(
    [followed('one'), followed('two', isTwoSuspended)],
    new Map([
      ['one', { revision: 'second', resources: one.map((name) => image(name)), invalid: [] }],
      ['two', { revision: 'second', resources: two.map((name) => image(name)), invalid: [] }],
    ]),
    names.map((name) => recorded(name, 'one')),
    0.5,
  );

it('what moves to another source is not taken for pruned', () => {
  const { sources, warnings } = collect(['a'], ['b', 'c', 'd']);
  expect(warnings).toEqual([]);
  expect(sources.map(({ prune }) => prune)).toEqual([true, true]);
});

it('what no source declares any more counts as pruned', () => {
  const { sources, warnings } = collect(['a'], []);
  expect(warnings).toMatchObject([{ source: 'one', reason: 'PruneRefused' }]);
  expect(sources.map(({ prune }) => prune)).toEqual([false, true]);
});

it('what moves to a suspended source is its own, and holds up no pruning', () => {
  const { sources, warnings } = collect(['a', 'b'], ['c'], { isTwoSuspended: true });
  expect(warnings).toEqual([]);
  expect(sources.map(({ id, prune }) => [id, prune])).toEqual([
    ['one', true],
    ['two', false],
  ]);
  expect(sources[1]?.resources.map(({ metadata }) => metadata.name)).toEqual(['c']);
});

it('what a suspended source declares is taken from it by nobody who comes after it', () => {
  const followers = [followed('one', true), followed('two')];
  const declared = new Map(
    ['one', 'two'].map((name) => [name, { revision: 'first', resources: [image('a')], invalid: [] }]),
  );
  const { sources, warnings } = collectSources(followers, declared, [], 0.5);
  expect(sources.map(({ resources }) => resources.length)).toEqual([1, 0]);
  expect(warnings).toMatchObject([{ source: 'two', reason: 'Duplicate' }]);
});

/** What is said when a source that had all of these declares only those that stay, in a revision with these annotations. */
function refusal(
  had: readonly Partial<ResourceRecord>[],
  stay: readonly string[],
  annotations: Record<string, string> = {},
): string | undefined {
  const records = had.map((more, index) => ({ ...recorded(names[index] ?? '', 'one'), ...more }));
  const resources = stay.map((name) => ({ ...image(name), metadata: { name, annotations } }));
  const declared = new Map([['one', { revision: 'third', resources, invalid: [] }]]);
  const { sources, warnings } = collectSources([followed('one')], declared, records as ResourceRecord[], 0.5);
  expect(sources[0]?.prune).toBe(warnings.length === 0);
  return warnings[0]?.message;
}

it('half may go, more than half may not, however few they are', () => {
  expect(refusal([{}, {}], ['a'])).toBeUndefined();
  expect(refusal([{}, {}, {}], ['a'])).toContain('2 of 3 resources of one (67%) would go');
});

it('what is never pruned makes no share smaller', () => {
  expect(refusal([{}, {}, { prune: false }, { prune: false }], ['a'])).toBeUndefined();
  expect(refusal([{}, {}, {}, { prune: false }, { prune: false }], ['a'])).toContain('2 of 3');
});

it('a source that declares nothing any more loses nothing, whatever the limit', () => {
  expect(refusal([{}], [])).toContain('it declares nothing for this host any more');
});

it('resources of several revisions are confirmed by all of these', () => {
  const had = [{}, { revision: 'zeroth' }, {}];
  const confirm = 'cimlet.dev/prune-confirmed';
  expect(refusal(had, ['a'])).toContain(`${confirm}: first,zeroth`);
  expect(refusal(had, ['a'], { [confirm]: 'first' })).toBeDefined();
  expect(refusal(had, ['a'], { [confirm]: 'first, zeroth' })).toBeUndefined();
});
