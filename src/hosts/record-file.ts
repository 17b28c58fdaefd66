/** Small files that say what is there: whole and durable, or not there at all. */

import { readFileSync } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { classify, isErrorCode } from '../errors.ts';
import { syncDirectory } from './directories.ts';

/** Undefined when it isn't there or isn't what it should be: a torn record is the same as none. */
export async function readRecord<T extends { formatVersion: 1 }>(
  file: string,
  isWhole: (record: Partial<T>) => boolean,
): Promise<T | undefined> {
  let text: string;
  try {
    // In place: a few kilobytes, of which there may be ten thousand to read at the start.
    text = readFileSync(file, 'utf8');
  } catch (error) {
    const classified = classify(error, `read ${file}`);
    if (isErrorCode(classified, 'not-found', 'failed-precondition')) return undefined;
    throw classified;
  }
  const record = parseJson(text) as Partial<T> | null | undefined;
  return typeof record === 'object' && record !== null && record.formatVersion === 1 && isWhole(record)
    ? (record as T)
    : undefined;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** Durable when this returns. */
export async function writeRecord(file: string, record: object): Promise<void> {
  const temporary = join(dirname(file), `tmp-${basename(file)}`);
  try {
    const handle = await open(temporary, 'w');
    try {
      await handle.writeFile(`${JSON.stringify(record, undefined, 2)}\n`);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
    await syncDirectory(dirname(file));
  } catch (error) {
    await rm(temporary, { force: true });
    throw classify(error, `write ${file}`);
  }
}
