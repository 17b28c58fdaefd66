/**
 * Merges a layer's registry delta over the hive below it: what a container would see of both. The rules are those of
 * layered keys; docs/decisions/0006-hive-merge.md says which and why.
 */

import { CimletError } from '../errors.ts';
import { type Hive, type HiveKey, type HiveValue, sortByName } from './model.ts';
import { upcaseName } from './names.ts';

/**
 * The hive with all of `base` that `delta` leaves, and all that `delta` adds. It has no layered keys of its own: what
 * they say has been done, to those of `base` too. Both hives stay as they are; the result shares their objects.
 */
export function mergeHives(base: Hive, delta: Hive): Hive {
  const below = flattenKey(base.root);
  const root = below && mergeKey(below, delta.root);
  if (root === undefined) {
    const which = below === undefined ? base : delta;
    throw new CimletError('corrupt', `merge hives: hive "${which.fileName}" deletes its root key`);
  }
  return {
    root: { ...root, name: base.root.name },
    timestamp: later(base.timestamp, delta.timestamp),
    fileName: base.fileName,
    dirty: false,
  };
}

/** What is left of a key of `delta` over the same key below; undefined when it is deleted. `below` is flat. */
function mergeKey(below: HiveKey, key: HiveKey): HiveKey | undefined {
  if (key.layer === 'tombstone') return undefined;
  if (key.layer === 'supersede-tree') return flattenKey(key);
  const keepsLocal = key.layer === 'merge';
  return {
    ...key,
    className: keepsLocal && key.inheritsClass ? below.className : key.className,
    timestamp: keepsLocal ? later(below.timestamp, key.timestamp) : key.timestamp,
    security: key.security ?? below.security,
    layer: 'merge',
    inheritsClass: false,
    values: key.predefinedHandle === undefined ? mergeValues(keepsLocal ? below.values : [], key.values) : [],
    subkeys: mergeSubkeys(below.subkeys, key.subkeys),
  };
}

function mergeValues(below: readonly HiveValue[], above: readonly HiveValue[]): readonly HiveValue[] {
  if (above.length === 0) return below;
  const merged = new Map(below.map((value) => [upcaseName(value.name), value]));
  for (const value of above) {
    const name = upcaseName(value.name);
    if (value.tombstone) merged.delete(name);
    else merged.set(name, value);
  }
  return [...merged.values()];
}

function mergeSubkeys(below: readonly HiveKey[], above: readonly HiveKey[]): readonly HiveKey[] {
  if (above.length === 0) return below;
  const merged = new Map(below.map((key) => [upcaseName(key.name), key]));
  for (const key of above) {
    const name = upcaseName(key.name);
    const under = merged.get(name);
    const result = under === undefined ? flattenKey(key) : mergeKey(under, key);
    if (result === undefined) merged.delete(name);
    else merged.set(name, result);
  }
  return sortByName([...merged.values()]);
}

/** The key as it stands with nothing below it; the same object if it has nothing layered. */
function flattenKey(key: HiveKey): HiveKey | undefined {
  if (key.layer === 'tombstone') return undefined;
  const values = key.values.filter((value) => !value.tombstone);
  const subkeys = key.subkeys.map(flattenKey).filter((subkey) => subkey !== undefined);
  const isFlat =
    key.layer === 'merge' &&
    !key.inheritsClass &&
    values.length === key.values.length &&
    subkeys.length === key.subkeys.length &&
    subkeys.every((subkey, i) => subkey === key.subkeys[i]);
  return isFlat ? key : { ...key, layer: 'merge', inheritsClass: false, values, subkeys };
}

function later(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}
