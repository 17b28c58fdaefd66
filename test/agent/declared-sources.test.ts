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
