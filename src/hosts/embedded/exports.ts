/** Exports being written, outside the root: a record of each one's temporary file, so that what a crash leaves is found. */

import { randomUUID } from 'node:crypto';
import { rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { classify, isErrorCode } from '../../errors.ts';
import { ensureDirectory, exists, listDirectory, removeEmptyDirectories } from './directories.ts';
import type { Layout } from './layout.ts';
import { readRecord, writeRecord } from './records.ts';

interface ExportRecord {
  formatVersion: 1;
  /** Where the tar is written; beside where it goes. */
  temporary: string;
}

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
  const record = join(layout.exports, `${folder}.json`);
  await ensureDirectory(layout.exports);
  await writeRecord(record, { formatVersion: 1, temporary } satisfies ExportRecord);
  try {
    return await write(temporary);
  } finally {
    if (!(await exists(temporary))) {
      await rm(record, { force: true });
      await removeEmptyDirectories([layout.exports]);
    }
  }
}

/** What exports of layers not at work left: the beginning of a tar, and its record. */
export async function findExportLeftovers(
  layout: Layout,
  isAtWork: (folder: string) => boolean,
): Promise<{ path: string; reason: string }[]> {
  const found: { path: string; reason: string }[] = [];
  for (const name of await listDirectory(layout.exports)) {
    if (isAtWork(name.replace(/^tmp-|\.json$/g, ''))) continue;
    const path = join(layout.exports, name);
    const record = await readRecord<ExportRecord>(path, ({ temporary }) => typeof temporary === 'string');
    const temporary = record?.temporary;
    if (temporary !== undefined && TEMPORARY_NAME.test(basename(temporary)) && (await exists(temporary)))
      found.push({ path: temporary, reason: 'an export that was interrupted' });
    found.push({ path, reason: 'a record of an export that was interrupted' });
  }
  return found;
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
