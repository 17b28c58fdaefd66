/** A directory, or a tar of one, read the same way. Names are relative, with `/`. */

import { type FileHandle, open, realpath, stat } from 'node:fs/promises';
import { join, posix, sep } from 'node:path';
import { CimletError, classify } from '../errors.ts';
import { DOCUMENT_LIMIT } from './documents.ts';
import { indexTar, type TarMember } from './tar-index.ts';

/** Where bytes are: a whole file, or a part of one. */
export interface FileRange {
  file: string;
  offset: number;
  size: number;
}

export interface Bundle {
  readonly path: string;
  /** Where the regular file `name` is; undefined when there is none. Never leads outside the bundle. */
  find(name: string): Promise<FileRange | undefined>;
}

const MOST_LINKS = 16;

export async function openBundle(path: string, signal: AbortSignal): Promise<Bundle> {
  const operation = `open image ${path}`;
  try {
    const root = await realpath(path);
    const found = await stat(root);
    if (found.isDirectory()) return directoryBundle(path, root);
    if (!found.isFile()) {
      throw new CimletError('failed-precondition', `${operation}: neither a directory nor a tar file`);
    }
    return await tarBundle(path, root, found.size, signal);
  } catch (error) {
    throw classify(error, operation);
  }
}

/** Reads a document of at most 4 MiB; `name` is how errors call it. */
export async function readDocument(range: FileRange, name: string): Promise<Buffer> {
  if (range.size > DOCUMENT_LIMIT) {
    throw new CimletError(
      'corrupt',
      `${name}: ${range.size} bytes, more than the ${DOCUMENT_LIMIT} a document may have`,
    );
  }
  const bytes = await readRange(range, range.size, name);
  if (bytes.length < range.size) {
    throw new CimletError('corrupt', `${name}: ends after ${bytes.length} of ${range.size} bytes`);
  }
  return bytes;
}

/** The first `length` bytes of a range, or as many as there are. */
export async function readRange(range: FileRange, length: number, name: string): Promise<Buffer> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(range.file, 'r');
    const buffer = Buffer.alloc(Math.min(length, range.size));
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, range.offset);
    return buffer.subarray(0, bytesRead);
  } catch (error) {
    throw classify(error, `read ${name}`);
  } finally {
    await handle?.close();
  }
}

function directoryBundle(path: string, root: string): Bundle {
  return {
    path,
    async find(name) {
      if (cleanName(name) !== name) return undefined;
      try {
        const file = await realpath(join(root, name));
        if (!file.startsWith(root.endsWith(sep) ? root : root + sep)) {
          throw new CimletError('access-denied', `${join(path, name)}: a link that leads outside ${path}`, {
            hint: 'copy the file into the layout',
          });
        }
        const found = await stat(file);
        return found.isFile() ? { file, offset: 0, size: found.size } : undefined;
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
        throw classify(error, `read ${join(path, name)}`);
      }
    },
  };
}

async function tarBundle(path: string, file: string, size: number, signal: AbortSignal): Promise<Bundle> {
  await refuseCompressed(path, { file, offset: 0, size });
  const members = await readMembers(path, file, size, signal);
  return {
    path,
    async find(name) {
      let wanted: string | undefined = cleanName(name);
      for (let links = 0; wanted !== undefined && links < MOST_LINKS; links++) {
        const member = members.get(wanted);
        if (member === undefined || member.kind === 'other') return undefined;
        if (member.kind === 'file') return { file, offset: member.offset, size: member.size };
        const folder = member.kind === 'symlink' ? posix.dirname(wanted) : '.';
        wanted = member.target.startsWith('/') ? undefined : cleanName(posix.join(folder, member.target));
      }
      return undefined;
    },
  };
}

async function readMembers(
  path: string,
  file: string,
  size: number,
  signal: AbortSignal,
): Promise<Map<string, TarMember>> {
  const handle = await open(file, 'r');
  try {
    const members = await indexTar(handle, size, path, signal);
    return new Map([...members].map(([name, member]) => [cleanName(name) ?? name, member]));
  } finally {
    await handle.close();
  }
}

async function refuseCompressed(path: string, range: FileRange): Promise<void> {
  const start = await readRange(range, 4, path);
  const magic = start.toString('hex');
  const tool = magic.startsWith('1f8b') ? 'gunzip' : magic === '28b52ffd' ? 'unzstd' : undefined;
  if (tool === undefined) return;
  throw new CimletError('corrupt', `${path}: a compressed tar; its members can't be read in place`, {
    hint: `decompress it first: ${tool} ${path}`,
  });
}

/** Without `./`; undefined when it is absolute or leads out with `..`. */
function cleanName(name: string): string | undefined {
  const clean = posix.normalize(name);
  return clean.startsWith('/') || clean === '..' || clean.startsWith('../') || clean.includes('\0')
    ? undefined
    : clean;
}
