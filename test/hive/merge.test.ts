import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { mergeHives } from '../../src/hive/merge.ts';
import { createHive, type Hive, type HiveKey, type HiveValue } from '../../src/hive/model.ts';
import { upcaseName } from '../../src/hive/names.ts';
import { readHive } from '../../src/hive/reader.ts';
import { writeHive } from '../../src/hive/writer.ts';
import { arbitraryHive, descriptor, key, LAYERED, richHive, TIME, text, tombstone } from './fixture.ts';

function hive(subkeys: HiveKey[], values: HiveValue[] = []): Hive {
  return createHive(key('ROOT', { subkeys, values }), { fileName: 'TEST' });
}

const BASE = hive([
  key('Keep', { values: [text('v', 'base')] }),
  key('Over', {
    className: 'base class',
    values: [text('a', 'base'), text('b', 'base')],
    subkeys: [key('sub', { values: [text('deep', 'base')] })],
  }),
]);

function mergedOver(delta: HiveKey): HiveKey | undefined {
  return mergeHives(BASE, hive([delta])).root.subkeys.find(({ name }) => upcaseName(name) === 'OVER');
}

describe('mergeHives', () => {
  it('lets a delta add and override without case, in the spelling and place of each', () => {
    const merged = mergeHives(
      BASE,
      hive([key('over', { values: [text('B', 'delta'), text('c', 'delta')] }), key('New')]),
    );
    expect(merged.root.subkeys.map(({ name }) => name)).toEqual(['Keep', 'New', 'over']);
    expect(merged.root.subkeys[0]).toBe(BASE.root.subkeys[0]);
    expect(merged.root.subkeys[2]?.values).toEqual([
      text('a', 'base'),
      text('B', 'delta'),
      text('c', 'delta'),
    ]);
    expect(merged.root.subkeys[2]?.subkeys).toBe(BASE.root.subkeys[1]?.subkeys);
  });

  it('deletes what tombstones name, and minds none that name nothing', () => {
    const delta = hive([
      key('KEEP', { layer: 'tombstone', subkeys: [key('ignored')] }),
      key('Over', {
        values: [tombstone('A'), tombstone('absent')],
        subkeys: [key('absent', { layer: 'tombstone' })],
      }),
      key('absent', { layer: 'tombstone' }),
    ]);
    const { root } = mergeHives(BASE, delta);
    expect(root.subkeys.map(({ name }) => name)).toEqual(['Over']);
    expect(root.subkeys[0]?.values).toEqual([text('b', 'base')]);
    expect(root.subkeys[0]?.subkeys.map(({ name }) => name)).toEqual(['sub']);
  });

  it('replaces a superseded key but merges its subkeys', () => {
    const over = mergedOver(
      key('Over', { layer: 'supersede-local', values: [text('c', 'delta')], subkeys: [key('new')] }),
    );
    expect(over?.values).toEqual([text('c', 'delta')]);
    expect(over?.className).toBeUndefined();
    expect(over?.subkeys.map(({ name }) => name)).toEqual(['new', 'sub']);
    expect(over?.layer).toBe('merge');
  });

  it('replaces a superseded tree, tombstones in it included', () => {
    const over = mergedOver(
      key('Over', {
        layer: 'supersede-tree',
        inheritsClass: true,
        subkeys: [
          key('sub', { layer: 'supersede-tree', values: [tombstone('x'), text('y', 'delta')] }),
          key('dead', { layer: 'tombstone' }),
        ],
      }),
    );
    expect(over).toEqual(key('Over', { subkeys: [key('sub', { values: [text('y', 'delta')] })] }));
  });

  it.each<[Partial<HiveKey>, string | undefined]>([
    [{ inheritsClass: true }, 'base class'],
    [{ inheritsClass: true, className: 'own' }, 'base class'],
    [{ inheritsClass: false, className: 'own' }, 'own'],
    [{ inheritsClass: false }, undefined],
    [{ inheritsClass: true, layer: 'supersede-local' }, undefined],
  ])('takes the class name where %o says', (fields, className) => {
    expect(mergedOver(key('Over', fields))?.className).toBe(className);
  });

  it('takes the later time, and flags and security of the delta if it has any', () => {
    const above = { timestamp: TIME - 1n, flags: 0x10, virtualization: 2, security: descriptor(544) };
    expect(mergedOver(key('Over', above))).toMatchObject({ ...above, timestamp: TIME });
    expect(mergedOver(key('Over', { security: undefined, timestamp: TIME + 1n }))).toMatchObject({
      security: descriptor(),
      timestamp: TIME + 1n,
    });
  });

  it('keeps the name of the base and its root, whatever those of the delta are', () => {
    const delta = createHive(key('SYSTEM_Delta', { values: [text('v', 'delta')] }), {
      fileName: 'DELTA',
      timestamp: 1n,
    });
    const merged = mergeHives({ ...BASE, dirty: true }, delta);
    expect(merged).toMatchObject({ fileName: 'TEST', timestamp: TIME, dirty: false, root: { name: 'ROOT' } });
  });

  it('has no answer for a deleted root', () => {
    const gone = createHive(key('ROOT', { layer: 'tombstone' }), { fileName: 'GONE' });
    expect(() => mergeHives(BASE, gone)).toThrow('merge hives: hive "GONE" deletes its root key');
    expect(() => mergeHives(gone, BASE)).toThrow('merge hives: hive "GONE" deletes its root key');
  });

  it('changes nothing when the delta says nothing', () => {
    const empty = createHive(key('ROOT', { security: undefined, inheritsClass: true }));
    const rich = richHive();
    expect(mergeHives(rich, { ...empty, root: { ...empty.root, flags: rich.root.flags } })).toEqual(rich);
  });

  it('gives what each path says on its own, for any two hives', () => {
    fc.assert(
      fc.property(arbitraryHive(LAYERED), arbitraryHive(LAYERED), (base, delta) => {
        const merged = mergeHives(base, delta);
        expect(paths(merged.root)).toEqual(model([base, delta]));
        expect(readHive(writeHive(merged), 'merged')).toEqual(merged);
      }),
      { numRuns: 300 },
    );
  });

  it('gives the same for a chain of layers as for their paths', () => {
    fc.assert(
      fc.property(fc.array(arbitraryHive(LAYERED), { minLength: 2, maxLength: 5 }), (hives) => {
        const [base, ...deltas] = hives;
        const merged = deltas.reduce(mergeHives, base!);
        expect(paths(merged.root)).toEqual(model(hives));
      }),
      { numRuns: 100 },
    );
  });
});

type Paths = Record<string, Record<string, string>>;

function describeValue({ type, data }: HiveValue): string {
  return `${type} ${data.toString('base64')}`;
}

function paths(root: HiveKey, path = '', found: Paths = {}): Paths {
  found[path] = Object.fromEntries(
    root.values.map((value) => [upcaseName(value.name), describeValue(value)]),
  );
  found[path][' class'] = root.className ?? '-';
  for (const subkey of root.subkeys) paths(subkey, `${path}\\${upcaseName(subkey.name)}`, found);
  return found;
}

/**
 * What stacked hives show, asked path by path from the top layer down: no tree is built, and nothing is shared with
 * the merge. A path exists if the topmost layer that knows it, before a tombstone or a superseded tree hides the
 * rest, has a key there.
 */
function model(hives: Hive[]): Paths {
  const found: Paths = {};
  const ask = (path: string[]): void => {
    const nodes = visibleNodes(hives, path);
    if (nodes.length === 0) return;
    const shown: Record<string, string> = {};
    const decided = new Set<string>();
    let className: string | undefined;
    let classDecided = false;
    for (const node of nodes) {
      if (!node.isLocal) break;
      if (!classDecided) className = node.key.className ?? '-';
      classDecided ||= !node.key.inheritsClass;
      for (const value of node.key.values) {
        const name = upcaseName(value.name);
        if (!decided.has(name) && !value.tombstone) shown[name] = describeValue(value);
        decided.add(name);
      }
    }
    found[path.map((name) => `\\${name}`).join('')] = { ...shown, ' class': className ?? '-' };
    const names = new Set(
      nodes.flatMap(({ key: { subkeys } }) => subkeys.map(({ name }) => upcaseName(name))),
    );
    for (const name of names) ask([...path, name]);
  };
  ask([]);
  return found;
}

/** Topmost first; `isLocal` until a superseding key has ended what values and class may come from. */
function visibleNodes(hives: Hive[], path: string[]): { key: HiveKey; isLocal: boolean }[] {
  const nodes: { key: HiveKey; isLocal: boolean }[] = [];
  let isLocal = true;
  for (const { root } of hives.toReversed()) {
    let node: HiveKey | undefined = root;
    let hides = root.layer === 'supersede-tree';
    for (const name of path) {
      if (node === undefined) break;
      node = node.subkeys.find((subkey) => upcaseName(subkey.name) === name);
      if (node?.layer === 'tombstone') return nodes;
      if (node?.layer === 'supersede-tree') hides = true;
    }
    if (node !== undefined) nodes.push({ key: node, isLocal });
    if (hides) return nodes;
    if (node?.layer === 'supersede-local') isLocal = false;
  }
  return nodes;
}
