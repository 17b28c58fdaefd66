/** Exports being written, outside the root: a record of each one's temporary file, so that what a crash leaves is found. */

import { randomUUID } from 'node:crypto';
import { rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { classify, isErrorCode } from '../errors.ts';
import { ensureDirectory, exists, listDirectory } from './directories.ts';
import type { Layout } from './layout.ts';
import { readRecord, writeRecord } from './record-file.ts';

interface ExportRecord {
  formatVersion: 1;
  /** Where the tar is written; beside where it goes. */
  temporary: string;
}

/** Exports take no lock: the process is in the name, so that another one's are known, and don't get in each other's way. */
const RECORD_NAME = /^(?:tmp-)?(\d+)-(.+)\.(json|files)$/;

const TEMPORARY_NAME = /^\..+\.[0-9a-f-]{36}\.part$/;

/**
 * Has `write` write the tar of a layer, whose folder's name is given, at a path beside `file` that it renames when it is whole; or at `file`
 * itself when a pipe or device is there.
 */
export async function whileRecorded<T>(
  layout: Layout,
  folder: string,
  file: string,
  write: (temporary: string) => Promise<T>,
): Promise<T> {
  if (await isSpecial(file)) return write(file);
  const temporary = join(dirname(file), `.${basename(file)}.${randomUUID()}.part`);
  const record = join(layout.exports, `${process.pid}-${folder}.json`);
  await ensureDirectory(layout.exports);
  await writeRecord(record, { formatVersion: 1, temporary } satisfies ExportRecord);
  try {
    return await write(temporary);
  } finally {
    // The directory stays: another process may be about to put its record there.
    if (!(await exists(temporary))) await rm(record, { force: true });
  }
}

/** A folder for what the export of a layer, whose folder's name is given, makes meanwhile. */
export function exportFolder(layout: Layout, folder: string): string {
  return join(layout.exports, `${process.pid}-${folder}.files`);
}

/** The folders of exports that are under way or were interrupted, by name, and those of the layers they are of. */
export async function listExportFolders(layout: Layout): Promise<{ name: string; layer: string }[]> {
  return (await listDirectory(layout.exports)).flatMap((name) => {
    const [, , layer, kind] = RECORD_NAME.exec(name) ?? [];
    return layer !== undefined && kind === 'files' ? [{ name, layer }] : [];
  });
}

/** What exports left that nobody is at: the beginning of a tar, and its record. `isAtWork` is about layers, and this process. */
export async function findExportLeftovers(
  layout: Layout,
  isAtWork: (folder: string) => boolean,
): Promise<{ path: string; reason: string }[]> {
  const found: { path: string; reason: string }[] = [];
  for (const name of await listDirectory(layout.exports)) {
    const [, pid, folder = '', kind] = RECORD_NAME.exec(name) ?? [];
    if (Number(pid) === process.pid ? isAtWork(folder) : isAlive(Number(pid))) continue;
    const path = join(layout.exports, name);
    if (kind === 'files') {
      found.push({ path, reason: 'what an export that was interrupted had made meanwhile' });
      continue;
    }
    const record = await readRecord<ExportRecord>(path, ({ temporary }) => typeof temporary === 'string');
    const temporary = record?.temporary;
    if (temporary !== undefined && TEMPORARY_NAME.test(basename(temporary)) && (await exists(temporary)))
      found.push({ path: temporary, reason: 'an export that was interrupted' });
    found.push({ path, reason: 'a record of an export that was interrupted' });
  }
  return found;
}

/** Whether there is such a process, whoever's it is. */
function isAlive(pid: number): boolean {
  // What is no process's ID: 0 would be this one's group.
  if (!(pid > 0)) return false;
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

async function isSpecial(file: string): Promise<boolean> {
  try {
    return !(await stat(file)).isFile();
  } catch (error) {
    const classified = classify(error, `look at ${file}`);
    if (isErrorCode(classified, 'not-found')) return false;
    throw classified;
  }
}
