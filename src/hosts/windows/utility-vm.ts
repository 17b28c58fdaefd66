/**
 * The utility VM of a layer over others: Windows merges none, so a layer that changes anything of it has one of its own, made
 * of hard links to its parent's files. What Windows or a process changes in place is copied.
 */

import { mkdirSync, readdirSync } from 'node:fs';
import { win32 } from 'node:path';
import { classify } from '../../errors.ts';
import { foldName } from '../../layers/layer-tree.ts';
import type { BackupFile } from '../../native/windows/backup.ts';
import { type DirectoryBasics, PlacedFiles, setDirectories } from './placed-files.ts';
import type { BackupCalls } from './windows-calls.ts';

const FILES = 'UtilityVM\\Files';
const BOOT = `${FILES}\\EFI\\Microsoft\\Boot`;
const COPIED = new Set(
  ['BCD', 'BCD.LOG', 'BCD.LOG1', 'BCD.LOG2'].map((name) => foldName(`${BOOT}\\${name}`)),
);
const CHUNK = 1 << 20;

/** Ready to be changed: a clone of that of the topmost parent that has one. Parents come topmost first. */
export function openUtilityVm(layer: string, parents: readonly string[], calls: BackupCalls): PlacedFiles {
  const parent = parents.find((path) => calls.facts.info(win32.join(path, FILES))?.isDirectory);
  try {
    mkdirSync(win32.join(layer, 'UtilityVM'), { recursive: true });
    if (parent !== undefined) {
      const directories: DirectoryBasics[] = [];
      clone(parent, layer, FILES, directories, calls);
      setDirectories(layer, directories, calls.files);
    }
  } catch (error) {
    throw classify(error, `clone the utility VM of ${parent}`);
  }
  return new PlacedFiles(layer, calls.files);
}

function clone(
  from: string,
  to: string,
  path: string,
  directories: DirectoryBasics[],
  calls: BackupCalls,
): void {
  const source = win32.join(from, path);
  const target = win32.join(to, path);
  const info = calls.facts.info(source);
  if (info === undefined) return;
  const isPlain = info.reparseTag === 0;
  if (isPlain && !info.isDirectory && !COPIED.has(foldName(path))) {
    calls.files.link(source, target);
    return;
  }
  if (info.isDirectory) calls.files.makeDirectory(target);
  copy(source, target, info.isDirectory, calls);
  calls.files.setBasics(target, info);
  if (!info.isDirectory || !isPlain) return;
  directories.push({ path, basics: info });
  for (const name of readdirSync(source)) clone(from, to, win32.join(path, name), directories, calls);
}

/** With all that NTFS keeps of it. */
function copy(source: string, target: string, isDirectory: boolean, { files }: BackupCalls): void {
  const from = files.openToBackUp(source);
  let to: BackupFile | undefined;
  try {
    to = isDirectory ? files.openToRestore(target) : files.createToRestore(target);
    const buffer = new Uint8Array(CHUNK);
    for (let length = from.backUp(buffer); length > 0; length = from.backUp(buffer))
      to.restore(buffer.subarray(0, length));
  } finally {
    to?.close();
    from.close();
  }
}
