/** What filters mean: the cases that containerd has for its own (pkg/filters/filter_test.go), on snapshots. */

import { expect, it } from 'vitest';
import { parseFilter } from '../../src/snapshots/filters.ts';
import type { NamedSnapshot } from '../../src/snapshots/snapshotter.ts';

const snapshot = (name: string, labels: Record<string, string> = {}, parent?: string): NamedSnapshot => ({
  name,
  kind: 'active',
  parent,
  format: 'LCOW',
  chain: [],
  labels,
  state: 'ready',
  createdAt: '',
  updatedAt: '',
});

const corpus = [
  snapshot('foo', { foo: 'true' }),
  snapshot('bar'),
  snapshot('foo', { foo: 'present', 'more complex label': 'present' }),
  snapshot('bar', { bar: 'true' }),
  snapshot('fooer', { 'more complex label with \\ and "': 'present' }),
  snapshot('fooer', { 'more complex label with \\ and ".post': 'present' }),
  snapshot('baz', {}, 'too complex, yo'),
  snapshot('bazo', {}, 'abc'),
  snapshot('compound', { foo: 'omg_asdf.asdf-qwer', empty: '' }),
];
const ALL = [0, 1, 2, 3, 4, 5, 6, 7, 8];

it.each<[string, number[]]>([
  ['', ALL],
  ['name', ALL],
  ['parent', ALL],
  ['parent==""', [0, 1, 2, 3, 4, 5, 8]],
  ['labels.foo', [0, 2, 8]],
  ['labels.empty', [8]],
  ['labels.foo,name', [0, 2, 8]],
  ['labels.foo==true', [0]],
  ['labels.foo==omg_asdf.asdf-qwer', [8]],
  ['name==bar', [1, 3]],
  ['name == bar', [1, 3]],
  ['name!=bar', [0, 2, 4, 5, 6, 7, 8]],
  ['labels.bar!=true', [0, 1, 2, 4, 5, 6, 7, 8]],
  ['name==bar,labels.bar', [3]],
  ['parent=="too complex, yo"', [6]],
  ['parent~=[abc]+,name!=foo', [6, 7]],
  ['parent~=/[abc]+/,name!=foo', [6, 7]],
  ['parent~=/[abc]{1,2}/,name!=foo', [6, 7]],
  ['parent~=|[abc]{1,2}|,name!=foo', [6, 7]],
  ['parent~=/[abc]{0,1}"\\//,name!=foo', []],
  ['name~=/^b/', [1, 3, 6, 7]],
  ['name~="^b.z$"', [6]],
  ['name=="b\\x61\\u0072"', [1, 3]],
  ['name==bar,labels.bar==true', [3]],
  ['name==bar,labels.bar==wrong', []],
  ['name==foo,labels."more complex label"', [2]],
  ['labels."more complex label with \\\\ and \\""==present', [4]],
  ['labels."more complex label with \\\\ and \\"".post==present', [5]],
])('%s', (text, expected) => {
  const passes = parseFilter(text);
  expect(corpus.flatMap((each, index) => (passes(each) ? [index] : []))).toEqual(expected);
});

it.each([
  'labels.|foo|==omg_asdf.asdf-qwer',
  'labels.?"more complex label with \\\\ and \\"".post==present',
  'name==foo,',
  'name==foo bar',
  'labels.',
  'name~=,id?=?fbaq',
  'labels.ns/key==value',
  'labels.key==/value',
  'labels.key==/value/',
  'name=foo',
  'name===foo',
  'name=="foo',
  'name=="f\\d"',
  'name=="\\U00110000"',
  ',name',
  'size==1',
  'labels',
  'name~=(',
])('refuses %s, saying where', (text) => {
  expect(() => parseFilter(text)).toThrow(
    expect.objectContaining({ code: 'invalid-manifest', message: expect.stringContaining(': at ') }),
  );
});
