/** What a forked image is said to hold while it is written, against a plain model of it. */

import fc from 'fast-check';
import { expect, it } from 'vitest';
import { FileAttribute, type FileInfo } from '../../../src/cim/types.ts';
import { ImageNames } from '../../../src/hosts/windows/image-names.ts';
import type { LowerView } from '../../../src/layers/lower-view.ts';

/** Folded path -> spelling and whether it is a directory. */
type Tree = Map<string, { path: string; isDirectory: boolean }>;

const fold = (path: string) => path.toUpperCase();

function infoOf(isDirectory: boolean): FileInfo {
  const attributes = isDirectory ? FileAttribute.directory : 0;
  const times = { creationTime: 0n, lastWriteTime: 0n, changeTime: 0n, lastAccessTime: 0n };
  return { ...times, attributes, size: 0, id: 0, isDirectory, reparseTag: 0 };
}

function childrenOf(tree: Tree, path: string): string[] {
  const prefix = path === '' ? '' : `${fold(path)}/`;
  return [...tree.entries()]
    .filter(([folded]) => folded.startsWith(prefix) && !folded.slice(prefix.length).includes('/'))
    .map(([, entry]) => entry.path.slice(prefix.length))
    .sort();
}

function viewOf(tree: Tree): LowerView {
  return {
    stat: (path) => {
      const entry = tree.get(fold(path));
      return entry && infoOf(entry.isDirectory);
    },
    entries: (path) => childrenOf(tree, path).map((name) => ({ name })),
    streams: () => [],
    read: () => [],
  };
}

function remove(tree: Tree, path: string): void {
  for (const folded of [...tree.keys()])
    if (folded === fold(path) || folded.startsWith(`${fold(path)}/`)) tree.delete(folded);
}

/** As a writer does it: parents are there, and nothing comes below a file. */
function canHold(tree: Tree, path: string): boolean {
  const parent = path.slice(0, Math.max(0, path.lastIndexOf('/')));
  return parent === '' || tree.get(fold(parent))?.isDirectory === true;
}

const name = fc.constantFrom('a', 'B', 'b', 'cc');
const anyPath = fc.array(name, { minLength: 1, maxLength: 3 }).map((parts) => parts.join('/'));
const anyStep = fc.record({ action: fc.constantFrom('file', 'directory', 'delete'), path: anyPath });

function add(tree: Tree, path: string, isDirectory: boolean): void {
  const known = tree.get(fold(path));
  if (!(isDirectory && known?.isDirectory)) remove(tree, path);
  tree.set(fold(path), { path, isDirectory });
}

it('answers as the image would, whatever is added and deleted over whatever is below', () => {
  fc.assert(
    fc.property(fc.array(anyStep, { maxLength: 8 }), fc.array(anyStep, { maxLength: 12 }), (below, steps) => {
      const lower: Tree = new Map();
      for (const { action, path } of below)
        if (action !== 'delete' && canHold(lower, path)) add(lower, path, action === 'directory');
      const image: Tree = new Map(lower);
      const names = new ImageNames(viewOf(lower));
      for (const { action, path } of steps) {
        if (action === 'delete') {
          expect(names.delete(path)).toBe(image.has(fold(path)));
          remove(image, path);
        } else if (canHold(image, path)) {
          names.add(path, infoOf(action === 'directory'));
          add(image, path, action === 'directory');
        }
      }
      for (const path of ['', ...[...image.values()].map((entry) => entry.path)]) {
        const found = names.entries(path).map((entry) => fold(entry.name));
        expect(found.sort()).toEqual(childrenOf(image, path).map(fold).sort());
      }
      for (const { path } of [...below, ...steps])
        expect(names.stat(path)?.isDirectory).toBe(image.get(fold(path))?.isDirectory);
    }),
  );
});
