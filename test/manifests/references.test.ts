import { describe, expect, it } from 'vitest';
import { loadManifests } from '../../src/manifests/load.ts';
import { formatProblem, loadText, manifest, problemsOf, withFolder } from './support.ts';

const image = (name: string, dependsOn: object[] = []) =>
  manifest('Image', { source: { ociLayout: 'x' }, dependsOn }, { name });
const chain = (name: string, images: string[], dependsOn: object[] = []) =>
  manifest('LayerChain', { layers: images.map((each) => ({ image: each })), dependsOn }, { name });
const mount = (name: string, spec: object) => manifest('Mount', { path: `/mnt/${name}`, ...spec }, { name });
const stream = (...documents: string[]) => documents.join('\n---\n');
/** Like problemsOf, without the columns, which follow from the JSON. */
const problems = async (...documents: string[]) =>
  (await problemsOf(stream(...documents))).map((line) => line.replaceAll(/-:(\d+):\d+/g, '-:$1'));

describe('duplicates', () => {
  it('name both places', () =>
    withFolder({ 'a.yaml': image('x'), 'b.yaml': `\n${image('x')}` }, async (folder) => {
      const loaded = await loadManifests([folder]);
      expect(loaded.problems.map((problem) => formatProblem(problem, folder))).toEqual([
        'b.yaml:2:1: [duplicate] Image/x is already declared at a.yaml:1:1',
      ]);
      expect(loaded.resources).toHaveLength(1);
    }));

  it('are none when the kinds differ', async () => {
    expect(await problems(image('x'), chain('x', ['x']), mount('x', { chain: 'x' }))).toEqual([]);
  });
});

describe('dangling references', () => {
  it('are not told of what a misspelt kind declares', async () => {
    const misspelt = chain('c', ['x']).replace('LayerChain', 'LayerChan');
    const found = await problems(misspelt, mount('m', { chain: 'c' }));
    expect(found.map((line) => /\[(.*)\]/.exec(line)?.[1])).toEqual(['unknown-kind']);
  });

  it.each<[string, string[], string[]]>([
    [
      'a chain of an unknown image',
      [image('nano'), chain('c', ['nano', 'nanno'])],
      [
        "-:3: [dangling-reference] spec.layers[1].image refers to Image/nanno, which isn't declared (did you mean `nano`?)",
      ],
    ],
    [
      'a mount of an unknown chain',
      [mount('m', { chain: 'c' })],
      ["-:1: [dangling-reference] spec.chain refers to LayerChain/c, which isn't declared"],
    ],
    [
      'a mount of an unknown image',
      [chain('web', ['i']), image('i'), mount('m', { image: 'web' })],
      ["-:5: [dangling-reference] spec.image refers to Image/web, which isn't declared"],
    ],
    [
      'an unknown dependency',
      [image('i', [{ kind: 'Mount', name: 'm' }])],
      ["-:1: [dangling-reference] spec.dependsOn[0].name refers to Mount/m, which isn't declared"],
    ],
    [
      'an unknown mount to share with',
      [image('i'), mount('m', { image: 'i', access: 'ReadWrite', scratch: { shareWith: 'n' } })],
      ["-:3: [dangling-reference] spec.scratch.shareWith refers to Mount/n, which isn't declared"],
    ],
  ])('%s', async (_name, documents, expected) => {
    expect(await problems(...documents)).toEqual(expected);
  });

  it('are not reported for what is declared but invalid', async () => {
    const found = await problems(manifest('Image', {}, { name: 'i' }), chain('c', ['i']));
    expect(found).toEqual(['-:1: [schema] spec.source is missing']);
  });

  it('point at the reference', async () => {
    const text = `${image('app')}\n---\napiVersion: cimlet.dev/v1alpha1\nkind: Mount\nmetadata: {name: m}\nspec:\n  image: ap\n  path: /m\n`;
    expect((await loadText(text)).problems).toEqual([
      {
        position: { file: '-', line: 7, column: 10 },
        resource: 'Mount/m',
        field: 'spec.image',
        code: 'dangling-reference',
        message: "spec.image refers to Image/ap, which isn't declared",
        suggestion: 'did you mean `app`?',
      },
    ]);
  });
});

describe('cycles', () => {
  const on = (kind: string, name: string) => [{ kind, name }];
  it.each<[string, string[], string[]]>([
    ['of one', [image('a', on('Image', 'a'))], ['-:1: [cycle] Image/a -> Image/a is a cycle (by -:1)']],
    [
      'through what a spec refers to',
      [image('a', on('Mount', 'm')), chain('c', ['a']), mount('m', { chain: 'c' })],
      ['-:1: [cycle] Image/a -> Mount/m -> LayerChain/c -> Image/a is a cycle (by -:1, -:5, -:3)'],
    ],
    [
      'two apart, and what leads into one',
      [
        image('lead', on('Image', 'a')),
        image('a', on('Image', 'b')),
        image('b', on('Image', 'a')),
        image('c', on('Image', 'd')),
        image('d', on('Image', 'c')),
      ],
      [
        '-:3: [cycle] Image/a -> Image/b -> Image/a is a cycle (by -:3, -:5)',
        '-:7: [cycle] Image/c -> Image/d -> Image/c is a cycle (by -:7, -:9)',
      ],
    ],
    [
      'none in a diamond',
      [
        image('a'),
        chain('b', ['a']),
        chain('c', ['a'], on('LayerChain', 'b')),
        mount('d', { chain: 'c', dependsOn: on('LayerChain', 'b') }),
      ],
      [],
    ],
  ])('%s', async (_name, documents, expected) => {
    expect(await problems(...documents)).toEqual(expected);
  });

  it('are looked for without recursion', async () => {
    const length = 20_000;
    const names = Array.from({ length }, (_, index) => `i${index}`);
    const documents = names.map((name, index) =>
      image(name, index + 1 < length ? on('Image', `i${index + 1}`) : []),
    );
    expect(await problems(...documents)).toEqual([]);
  });
});
