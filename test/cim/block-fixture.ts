/** Block CIMs for tests: small layers written by a function, one container each. */

import { basename, join } from 'node:path';
import { type BlockCimWriter, createBlockCimWriter } from '../../src/cim/block-writer.ts';
import { publishContainer } from '../../src/cim/publish.ts';
import { type CimReader, openCim } from '../../src/cim/reader.ts';
import type { FinishedCim } from '../../src/cim/writer.ts';

export function guidOf(n: number): string {
  return `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;
}

/** Writes and publishes `layer<n>.bcim` with `layer.cim` in it; returns the CIM's path. */
export function writeBlock(directory: string, n: number, write: (writer: BlockCimWriter) => void): string {
  const file = join(directory, `layer${n}.bcim`);
  finishBlock(createBlockCimWriter({ file, name: 'layer', regionGuid: guidOf(n) }), write);
  publishContainer(file);
  return join(file, 'layer.cim');
}

export function finishBlock(writer: BlockCimWriter, write: (writer: BlockCimWriter) => void): FinishedCim {
  try {
    write(writer);
    return writer.finish();
  } finally {
    writer.close();
  }
}

export function withCim<T>(path: string, read: (reader: CimReader) => T, sources?: string[]): T {
  const reader = openCim(path, { sources });
  try {
    return read(reader);
  } finally {
    reader.close();
  }
}

/** Every path with what is there: `/` for directories, content for files, marks for marks. */
export function listCim(reader: CimReader): Record<string, string> {
  const found: Record<string, string> = {};
  for (const { path, id } of reader.walk()) {
    const { mark, isDirectory } = reader.stat(id);
    const content = isDirectory || mark ? '' : Buffer.concat([...reader.streamChunks(id)]).toString('latin1');
    const text = mark?.kind === 'merge-link' ? `=> ${mark.target}` : (mark?.kind ?? content);
    found[path] = isDirectory ? `/${mark?.kind ?? ''}` : text;
  }
  return found;
}

/** The container of a CIM's path. */
export function containerOf(path: string): string {
  return path.slice(0, -basename(path).length - 1);
}
