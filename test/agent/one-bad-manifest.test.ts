/** One bad manifest stalls its own resource and those that depend on it, nothing else; and removes nothing. */

import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readDeclaration } from '../../src/agent/declaration.ts';
import { collectSources } from '../../src/agent/declared-sources.ts';
import type { ResourceKey } from '../../src/manifests/resources.ts';
import type { Source } from '../../src/sources/source.ts';
import { expectValidRecords, openWorld, type World } from '../reconciler/support.ts';

const NAMES = ['a', 'b', 'c'];

let world: World;
beforeEach(() => open());
afterEach(() => world.close());

function open(): void {
  world = openWorld();
  for (const name of [...NAMES, 'leaving']) world.images.set(name, `x${name}`);
}

type Documents = Map<ResourceKey, string>;

function documents(names: readonly string[], suffix: string): Documents {
  const all: Documents = new Map();
  const add = (kind: 'Image' | 'LayerChain' | 'Mount', name: string, spec: string) =>
    all.set(
      `${kind}/${name}`,
      `apiVersion: cimlet.dev/v1alpha1\nkind: ${kind}\nmetadata: {name: ${name}}\nspec: ${spec}\n`,
    );
  for (const name of names) {
    add('Image', name, `{source: {ociLayout: ./${name}}}`);
    add('LayerChain', name, `{format: ForkedCIM, layers: [{image: ${name}}]}`);
    add('Mount', name, `{chain: ${name}, path: /mnt/${name}${suffix}}`);
  }
  return all;
}

/** Ways to get a document wrong of which it can still be told which one it is. */
const MISTAKES: Record<string, (document: string, key: ResourceKey) => string> = {
  'an unknown field': (document) => document.replace('spec: {', 'spec: {pathh: x, '),
  'a wrong value': (document) => document.replace('spec: {', 'spec: {suspend: perhaps, '),
  'a wrong value beside the name': (document) => document.replace('metadata: {', 'metadata: {labels: 5, '),
  'no spec': (document) => document.replace(/^spec: .*$/m, ''),
  'an empty spec': (document) => document.replace(/^spec: .*$/m, 'spec: {}'),
  'a reference to nothing': (document) =>
    document.replace('spec: {', 'spec: {dependsOn: [{kind: Mount, name: nothing}], '),
  'a reference to itself': (document, key) =>
    document.replace('spec: {', `spec: {dependsOn: [{kind: ${key.replace('/', ', name: ')}}], `),
  'the same name twice': (document) => `${document}---\n${document}`,
};

const source = { source: { name: 'here' } as Source, id: 'here', prune: true };
const { signal } = new AbortController();

/** A round with this revision in force. */
async function apply(revision: string, files: Documents): Promise<void> {
  const manifests = [...files].map(([key, text]) => {
    const name = `${key.replace('/', '-')}.yaml`;
    return { name, relativeName: name, path: `/here/${name}`, bytes: Buffer.from(text) };
  });
  const declared = new Map([['here', readDeclaration('here', { name: revision, manifests })]]);
  const { sources } = collectSources([source], declared, world.state.records().resources, 0.5);
  const planned = await world.engine.plan({ sources }, signal);
  const { failed } = await world.engine.apply(planned, { signal });
  expect(failed).toEqual([]);
}

async function mountPaths(): Promise<Map<string, string>> {
  const { resources } = await world.engine.status(signal);
  return new Map(
    resources.flatMap(({ kind, name, mounted }): [string, string][] =>
      kind === 'Mount' && mounted?.state === 'mounted' ? [[name, mounted.path]] : [],
    ),
  );
}

function stalled(): [string, string][] {
  return world.state.records().resources.flatMap(({ kind, name, conditions }): [string, string][] => {
    const condition = conditions.find(({ type }) => type === 'Stalled');
    return condition === undefined ? [] : [[`${kind}/${name}`, condition.message]];
  });
}

const anyMistake = fc.record({
  key: fc.constantFrom(...documents(NAMES, '').keys()),
  mistake: fc.constantFrom(...Object.keys(MISTAKES)),
});

function broken(files: Documents, { key, mistake }: { key: ResourceKey; mistake: string }): Documents {
  const document = files.get(key) ?? '';
  const wrong = MISTAKES[mistake]?.(document, key) ?? document;
  expect(wrong).not.toBe(document);
  return new Map([...files, [key, wrong]]);
}

describe('a mistake in one document', () => {
  test('whichever it is: all others converge, what it declared stays, and its repair is all it takes', () =>
    fc.assert(
      fc
        .asyncProperty(anyMistake, async (wrong) => {
          await apply('r1', documents([...NAMES, 'leaving'], ''));
          await apply('r2', broken(documents(NAMES, '-2'), wrong));
          const name = wrong.key.split('/')[1] ?? '';
          expect(await mountPaths()).toEqual(
            new Map(NAMES.map((each) => [each, each === name ? `/mnt/${each}` : `/mnt/${each}-2`])),
          );
          // What one source doesn't declare another one may.
          const message =
            wrong.mistake === 'a reference to nothing'
              ? /^it needs Mount\/nothing, which no manifest declares$/
              : new RegExp(`^${wrong.key.replace('/', '-')}\\.yaml:\\d+:\\d+: `);
          expect(stalled()).toEqual([[wrong.key, expect.stringMatching(message)]]);
          expectValidRecords(world.state);
          const recorded = world.state.records().resources.map((each) => `${each.kind}/${each.name}`);
          expect(new Set(recorded)).toEqual(new Set(documents(NAMES, '').keys()));
          await apply('r3', documents(NAMES, '-2'));
          expect(await mountPaths()).toEqual(new Map(NAMES.map((each) => [each, `/mnt/${each}-2`])));
          expect(stalled()).toEqual([]);
        })
        .beforeEach(() => {
          world.close();
          open();
        }),
      { numRuns: 30 },
    ));

  test('that was never right before: it is there, stalled, and goes when it is no longer declared', async () => {
    const wrong = { key: 'Image/a' as const, mistake: 'an unknown field' };
    await apply('r1', broken(documents(NAMES, ''), wrong));
    expect([...(await mountPaths()).keys()]).toEqual(['b', 'c']);
    expect(stalled().map(([key]) => key)).toEqual(['Image/a']);
    expect(world.state.events('Image/a')).toMatchObject([{ type: 'Warning', reason: 'InvalidManifest' }]);
    expect(world.state.events('Image/a')[0]?.message).toMatch(/unknown field "pathh" in spec/);
    expect(world.state.resource('Image/a')?.history).toMatchObject([{ result: 'Stalled', count: 1 }]);
    const record = world.state.resource('LayerChain/a');
    expect(record?.conditions.map(({ type, reason }) => `${type} ${reason}`)).toEqual([
      'Ready DependencyNotReady',
      'Reconciling DependencyNotReady',
    ]);
    await apply('r2', documents(['b', 'c'], ''));
    expect(world.state.resource('Image/a')).toBeUndefined();
  });

  test('what it needed stays too, although nothing declares that any more', async () => {
    await apply('r1', documents(NAMES, ''));
    const files = broken(documents(NAMES, ''), { key: 'Mount/a', mistake: 'a wrong value' });
    files.delete('Image/a');
    files.delete('LayerChain/a');
    await apply('r2', files);
    expect((await mountPaths()).get('a')).toBe('/mnt/a');
    expect(world.state.resource('LayerChain/a')).toBeDefined();
  });
});

describe('a mistake in a document for other hosts', () => {
  const elsewhere = () => {
    const files = documents(NAMES, '');
    const mount = files.get('Mount/a') ?? '';
    return files.set('Mount/a', mount.replace('spec: {', 'spec: {hosts: {matchLabels: {role: other}}, '));
  };
  const spoil = (files: Documents) => broken(files, { key: 'Mount/a', mistake: 'an unknown field' });

  test('is theirs', async () => {
    await apply('r1', spoil(elsewhere()));
    expect(stalled()).toEqual([]);
    expect(world.state.resource('Mount/a')).toBeUndefined();
  });

  test('takes nothing away from a host that has it', async () => {
    await apply('r1', documents(NAMES, ''));
    await apply('r2', spoil(elsewhere()));
    expect((await mountPaths()).get('a')).toBe('/mnt/a');
    expect(stalled().map(([key]) => key)).toEqual(['Mount/a']);
  });

  test("and one in what it says of hosts is everybody's", async () => {
    const files = documents(NAMES, '');
    const mount = files.get('Mount/a') ?? '';
    await apply('r1', files.set('Mount/a', mount.replace('spec: {', 'spec: {hosts: {matchLabels: 5}, ')));
    expect(stalled().map(([key]) => key)).toEqual(['Mount/a']);
  });
});

describe('a mistake of which it cannot be told whose it is refuses the revision', () => {
  test.each([
    ['text that does not parse', (text: string) => `${text}  - [`],
    ['a kind there is not', (text: string) => text.replace('kind: Image', 'kind: Imag')],
    ['no kind', (text: string) => text.replace('kind: Image', '')],
    ['another apiVersion', (text: string) => text.replace('v1alpha1', 'v2')],
    ['no name', (text: string) => text.replace('{name: a}', '{}')],
    ['a name that is none', (text: string) => text.replace('{name: a}', '{name: "A b"}')],
    ['no map', () => '- a\n'],
  ])('%s', async (_what, spoil) => {
    const files = documents(NAMES, '');
    files.set('Image/a', spoil(files.get('Image/a') ?? ''));
    await expect(apply('r1', files)).rejects.toMatchObject({
      code: 'invalid-manifest',
      message: expect.stringMatching(/revision r1 is not applied: Image-a\.yaml:\d+:\d+: /),
    });
  });
});
