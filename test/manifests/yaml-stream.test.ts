import { describe, expect, it } from 'vitest';
import { parseYaml } from '../../src/manifests/yaml-stream.ts';

function data(text: string): unknown[] {
  const { documents, faults } = parseYaml(text);
  expect(faults).toEqual([]);
  return documents.map((document) => document.data);
}

describe('what is read', () => {
  it.each<[string, string, unknown[]]>([
    ['nothing', '', []],
    ['comments only', '# a\n# b\n', []],
    ['empty documents', '---\n---\na: 1\n---\n...\n', [{ a: 1 }]],
    ['several documents', 'a: 1\n---\nb: 2\n', [{ a: 1 }, { b: 2 }]],
    [
      'YAML 1.2 words',
      'a: yes\nb: on\nc: true\nd: 0o10\ne: 010\nf: ~',
      [{ a: 'yes', b: 'on', c: true, d: 8, e: 10, f: null }],
    ],
    ['... under a YAML 1.1 directive too', '%YAML 1.1\n---\na: yes\n', [{ a: 'yes' }]],
    ['versions as text', 'a: 10.0.26100\nb: 1e3x', [{ a: '10.0.26100', b: '1e3x' }]],
    ['anchors', 'a: &x {p: 1}\nb: *x', [{ a: { p: 1 }, b: { p: 1 } }]],
    ['core tags', 'a: !!str 1', [{ a: '1' }]],
    ['JSON', '{"a": [1, {"b": "\\u00e9"}], "c": null}', [{ a: [1, { b: 'é' }], c: null }]],
    ['JSON with tabs', '{\n\t"a": [\n\t\t1\n\t]\n}\n', [{ a: [1] }]],
    ['Windows line ends', 'a: 1\r\nb: 2\r\n', [{ a: 1, b: 2 }]],
    ['a key named __proto__', '__proto__: {a: 1}', [JSON.parse('{"__proto__": {"a": 1}}')]],
    ['question marks in text', 'a: what ? why ?', [{ a: 'what ? why ?' }]],
    ['a few explicit keys', '? a\n: 1', [{ a: 1 }]],
  ])('%s', (_name, text, expected) => {
    expect(data(text)).toEqual(expected);
  });
});

describe('what is refused', () => {
  it.each<[string, string, string]>([
    ['duplicate keys', 'a: 1\nb:\n  c: 1\n  c: 2\n', '4:3 duplicate key "c"'],
    ['duplicate keys in JSON', '{"a": 1, "a": 2}', '1:10 duplicate key "a"'],
    ['custom tags', 'a: !env HOME', '1:4 Unresolved tag: !env'],
    ['tags beyond the core schema', 'a: !!binary aGk=', '1:4 Unresolved tag: tag:yaml.org,2002:binary'],
    ['unknown aliases', 'a: *b', '1:4 the alias *b has no anchor &b before it'],
    ['an alias inside its anchor', 'a: &b [*b]', '1:8 the alias *b stands inside its own anchor'],
    ['tabs as indentation', 'a:\n\tb: 1', '2:1 tabs are not allowed as indentation; use spaces'],
    [
      'an unfinished list',
      'a: [1,\n',
      '2:1 Flow sequence in block collection must be sufficiently indented and end with a ]',
    ],
    ['an unfinished string', 'a: "x', '1:6 the closing `"` is missing'],
    ['maps as keys', '? {a: 1}\n: b', '1:3 With stringKeys, all keys must be strings'],
  ])('%s', (_name, text, expected) => {
    const { documents, faults } = parseYaml(text);
    expect(documents).toEqual([]);
    expect(faults.map(({ line, column, message }) => `${line}:${column} ${message}`)).toContain(expected);
  });

  it('one document, while the others are read', () => {
    const { documents, faults } = parseYaml('a: 1\n---\na: *b\n---\nc: 1\n');
    expect(documents.map((document) => document.data)).toEqual([{ a: 1 }, { c: 1 }]);
    expect(faults).toEqual([{ line: 3, column: 4, message: 'the alias *b has no anchor &b before it' }]);
  });
});

/** Text that is small but means, or takes, far too much. */
describe('hostile text', () => {
  const many = 20_000;
  it.each<[string, string]>([
    [
      'alias bomb',
      Array.from(
        { length: 9 },
        (_, i) => `a${i}: &a${i} [${i === 0 ? 'x' : `${`*a${i - 1},`.repeat(9)}x`}]`,
      ).join('\n'),
    ],
    ['a map inside itself', '&a {b: *a, c: {d: *a}}'],
    ['many aliases', `- &a x\n${'- *a\n'.repeat(many)}`],
    ['open lists', '['.repeat(many)],
    ['nested lists', '['.repeat(many) + ']'.repeat(many)],
    ['nested block lists', '- '.repeat(many)],
    ['nested maps', '{a: '.repeat(many)],
    ['nested explicit keys', '? '.repeat(many)],
    ['nested explicit keys in lists', '[? '.repeat(many)],
    [
      'nested explicit keys, indented',
      Array.from({ length: 1000 }, (_, i) => `${' '.repeat(i)}?`).join('\n'),
    ],
    ['depth by indentation', Array.from({ length: 1000 }, (_, i) => `${' '.repeat(i)}a:`).join('\n')],
    ['duplicate keys', 'k: 1\n'.repeat(many)],
    ['unmatched ends', ']'.repeat(many)],
    ['tags', '!<a> '.repeat(many)],
    ['anchors', '&a '.repeat(many)],
    ['colons', ': '.repeat(many)],
    ['one long quote', `"${'a\n'.repeat(many)}`],
    ['NUL', '\u0000'.repeat(many)],
  ])('%s ends, with few faults', (_name, text) => {
    const { documents, faults } = parseYaml(text);
    expect(faults.length).toBeLessThanOrEqual(20);
    expect(documents.length + faults.length).toBeGreaterThan(0);
  });

  it('many keys take time in proportion', () => {
    const text = Array.from({ length: 100_000 }, (_, i) => `k${i}: 1`).join('\n');
    expect(Object.keys(data(text)[0] as object)).toHaveLength(100_000);
  });

  it('names the explicit key that is one too many', () => {
    const text = `a: x?\n${Array.from({ length: 22 }, (_, i) => `? k${i}\n: v`).join('\n')}`;
    expect(parseYaml(text).faults).toEqual([
      { line: 42, column: 1, message: 'too many explicit keys (`? key`); write `key: value`' },
    ]);
  });
});

describe('positions', () => {
  const text = [
    '# comment',
    'a:',
    '  b: 1',
    '  c: [x, {d: y}]',
    '  e:',
    '  - f: 1',
    '    g: &h {i: 2}',
    'j: *h',
    '',
  ].join('\n');
  it.each<[string, (string | number)[], 'key' | 'value', string]>([
    ['the document', [], 'value', '2:1'],
    ['a key', ['a', 'b'], 'key', '3:3'],
    ['a scalar', ['a', 'b'], 'value', '3:6'],
    ['a map, by its key', ['a'], 'value', '2:1'],
    ['an item', ['a', 'c', 0], 'value', '4:7'],
    ['a field of an item', ['a', 'c', 1, 'd'], 'value', '4:14'],
    ['an empty value, by its key', ['a', 'e', 0, 'f'], 'key', '6:5'],
    ['what is missing, by what lacks it', ['a', 'e', 0, 'zz'], 'value', '6:5'],
    ['through an alias, where it is written', ['j', 'i'], 'value', '7:15'],
  ])('%s', (_name, path, at, expected) => {
    const document = parseYaml(text).documents[0]!;
    const { line, column } = at === 'key' ? document.placeOfKey(path) : document.placeOf(path);
    expect(`${line}:${column}`).toBe(expected);
  });
});
