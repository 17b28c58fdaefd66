/** A directory tree as comparable data: what `find -printf`, `sha256sum` and `ls -i` would say. */

import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';

export interface TreeNode {
  type: 'directory' | 'file' | 'symlink' | 'other';
  size?: number;
  /** Whole seconds. */
  mtime?: number;
  target?: string;
  sha256?: string;
  /** Paths that are the same file, sorted; only for files with several names. */
  links?: string[];
}

/** Reads a tree below `root`; the root itself is entry `.`. Symlinks carry no time (their time isn't kept by every tool). */
export function readTree(root: string): Map<string, TreeNode> {
  const result = new Map<string, TreeNode>();
  const byInode = new Map<number, string[]>();
  const visit = (path: string): void => {
    const full = join(root, path);
    const stat = lstatSync(full);
    const mtime = Math.floor(stat.mtimeMs / 1000);
    if (stat.isDirectory()) {
      result.set(path === '' ? '.' : path, { type: 'directory', mtime });
      for (const name of readdirSync(full).sort()) visit(path === '' ? name : `${path}/${name}`);
    } else if (stat.isSymbolicLink()) {
      result.set(path, { type: 'symlink', target: readlinkSync(full) });
    } else if (stat.isFile()) {
      const sha256 = createHash('sha256').update(readFileSync(full)).digest('hex');
      result.set(path, { type: 'file', size: stat.size, mtime, sha256 });
      if (stat.nlink > 1) byInode.set(stat.ino, [...(byInode.get(stat.ino) ?? []), path]);
    } else {
      result.set(path, { type: 'other' });
    }
  };
  visit('');
  for (const paths of byInode.values()) {
    for (const path of paths) {
      const node = result.get(path);
      if (node !== undefined) node.links = [...paths].sort();
    }
  }
  return result;
}

/** What differs between two trees, as lines a person can read; empty when they are equal. */
export function diffTrees(expected: Map<string, TreeNode>, actual: Map<string, TreeNode>): string[] {
  const paths = [...new Set([...expected.keys(), ...actual.keys()])].sort();
  return paths.flatMap((path) => {
    const want = JSON.stringify(expected.get(path));
    const have = JSON.stringify(actual.get(path));
    return want === have ? [] : [`${path}: expected ${want ?? 'nothing'}, found ${have ?? 'nothing'}`];
  });
}
