/**
 * A folder of files that is to become a WCIFS base layer, completed with what Windows asks of one. Source: hcsshim's
 * ConvertToBaseLayer. Blocks, but for an instant.
 */

import { lstatSync, mkdirSync, type Stats } from 'node:fs';
import { win32 } from 'node:path';
import { CimletError, classify } from '../../errors.ts';
import { CONFIG, HIVES } from '../../layers/hives.ts';
import { Dlls } from '../../native/windows/dll.ts';
import { Offreg } from '../../native/windows/offreg.ts';

const UTILITY_VM = 'UtilityVM/Files';
const BCD = `${UTILITY_VM}/EFI/Microsoft/Boot/BCD`;

/**
 * Makes the registry hives that aren't there, empty. Throws `failed-precondition` for a utility VM that could not boot, and
 * where something else is in the place of a hive or above it: no link is followed.
 */
export function completeBaseLayer(folder: string): void {
  const offreg = new Offreg(new Dlls());
  try {
    requireUtilityVm(folder);
    const config = CONFIG.split('/').reduce((above, name) => realDirectory(win32.join(above, name)), folder);
    for (const { file } of HIVES) ensureHive(win32.join(config, file), offreg);
  } catch (error) {
    throw classify(error, `make a base layer of ${folder}`);
  }
}

function ensureHive(path: string, offreg: Offreg): void {
  const there = statsOf(path);
  if (there !== undefined && !there.isFile()) throw refuse(`${path} is no file`);
  if (there !== undefined) return;
  const hive = offreg.createHive();
  try {
    offreg.saveHive(hive, path);
  } finally {
    offreg.closeHive(hive);
  }
}

/** Whether it boots is for Windows to see; without BCD it can't. */
function requireUtilityVm(folder: string): void {
  let path = folder;
  for (const name of BCD.split('/')) {
    path = win32.join(path, name);
    const isLast = path === win32.join(folder, BCD);
    const there = statsOf(path);
    if (there === undefined && !path.startsWith(`${win32.join(folder, UTILITY_VM)}\\`)) return;
    if (there === undefined) throw refuse(`its utility VM has no ${path}`);
    if (isLast ? !there.isFile() : !there.isDirectory())
      throw refuse(`${path} is no ${isLast ? 'file' : 'directory'}`);
  }
}

/** Made when there is nothing. */
function realDirectory(path: string): string {
  const there = statsOf(path);
  if (there === undefined) mkdirSync(path);
  else if (!there.isDirectory()) throw refuse(`${path} is no directory`);
  return path;
}

function statsOf(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false });
}

function refuse(why: string): CimletError {
  return new CimletError('failed-precondition', `make a base layer: ${why}`, {
    hint: 'a base layer has its files in Files, and those of its utility VM in UtilityVM\\Files',
  });
}
