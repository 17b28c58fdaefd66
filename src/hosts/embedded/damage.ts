/**
 * Damage that showed when a committed layer or merged CIM was read. Observing compares sizes only, of what isn't sealed;
 * so what was found is noted beside the record, and goes with it when the layer is built anew.
 */

import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { writeDurable } from '../../cim/durable-files.ts';
import { CimletError, classify, isErrorCode } from '../../errors.ts';
import { type Layout, layerFolder, mergeFolder, snapshotPath } from '../layout.ts';
import { sizeOf } from '../quick-look.ts';
import { readLayerRecords, readMergeRecords, type StoredFile } from '../records.ts';

/** How errors about a file begin: what is wrong in it (src/cim/faults.ts), or that it is gone. */
const BEGINNINGS = { corrupt: 'read CIM: ', 'not-found': 'open ' } as const;

interface Owner {
  /** As an operator names it. */
  what: string;
  folder: string;
  files: string[];
}

/**
 * If `error` says that a file of a committed layer or merged CIM is damaged or gone, notes it and returns an error to wait
 * for: the next plan repairs the layer. Any other error is returned as it is, and this one too when it can't be noted.
 */
export async function noteDamage(layout: Layout, error: unknown): Promise<unknown> {
  if (!isErrorCode(error, 'corrupt', 'not-found')) return error;
  const beginning = BEGINNINGS[error.code as keyof typeof BEGINNINGS];
  if (!error.message.startsWith(beginning)) return error;
  const said = error.message.slice(beginning.length);
  const owner = (await ownersOf(layout)).find(({ files }) =>
    files.some((file) => said.startsWith(`${file}: `)),
  );
  if (owner === undefined) return error;
  const note = { formatVersion: 1, message: said.slice(said.indexOf(': ') + 2) };
  try {
    writeDurable(notePath(owner.folder), Buffer.from(`${JSON.stringify(note)}\n`));
  } catch (failure) {
    if (!(failure instanceof CimletError)) throw failure;
    // What is damaged says more than that it can't be noted. A folder that is gone is seen without a note.
    if (failure.code !== 'not-found') return error;
  }
  return new CimletError('failed-precondition', error.message, {
    hint: `${owner.what} is damaged; plan and apply again: it is built anew`,
    cause: error,
  });
}

/** What was noted of the layer or merged CIM in this folder; undefined when nothing was. */
function readDamage(folder: string): string | undefined {
  const file = notePath(folder);
  // Of thousands of layers hardly any has one.
  if (sizeOf(file) === undefined) return undefined;
  try {
    const { message }: { message?: unknown } = JSON.parse(readFileSync(file, 'utf8'));
    return String(message);
  } catch (error) {
    // A torn note is one all the same.
    if (error instanceof SyntaxError) return 'damage was found when it was read';
    const classified = classify(error, `read ${file}`);
    if (isErrorCode(classified, 'not-found', 'failed-precondition')) return undefined;
    throw classified;
  }
}

async function ownersOf(layout: Layout): Promise<Owner[]> {
  const inFolder = (folder: string, files: readonly StoredFile[]) =>
    files.map(({ name }) => join(folder, name));
  const layers = (await readLayerRecords(layout)).map(({ layer, cimFiles }) => {
    const folder = snapshotPath(layout, layerFolder(layer));
    const where = layer.format === 'ForkedCIM' ? layout.cimLayers : folder;
    return { what: `layer ${layer.chainId}`, folder, files: inFolder(where, cimFiles) };
  });
  const merges = (await readMergeRecords(layout)).flatMap(({ merge, cimFiles }) => {
    const top = merge.chain.at(-1);
    if (top === undefined) return [];
    const folder = snapshotPath(layout, mergeFolder(top));
    return [{ what: `the merged CIM on ${top}`, folder, files: inFolder(folder, cimFiles) }];
  });
  return [...layers, ...merges];
}

function notePath(folder: string): string {
  return `${folder}/damage.json`;
}

/** A fault for observing, from what was noted. */
export function damageFaults(folder: string): { code: 'file-corrupt'; message: string; path: string }[] {
  const message = readDamage(folder);
  if (message === undefined) return [];
  return [{ code: 'file-corrupt', message: `${basename(folder)} is damaged: ${message}`, path: folder }];
}
