/** Opens what `spec.source` of an Image names. */

import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { CimletError, classify } from '../errors.ts';
import { type Bundle, openBundle } from './bundle.ts';
import { dockerArchiveSource } from './docker-archive.ts';
import { ociLayoutSource } from './oci-layout.ts';
import type { ImageSource } from './types.ts';

/** Exactly one of the two; a path, or `path:tag` or `path@digest` where no file has the whole as its name. */
export interface ImageLocation {
  ociLayout?: string | undefined;
  dockerArchive?: string | undefined;
}

/**
 * Opens a layout or archive; a relative path starts at `baseDirectory`. A tar is indexed here, not extracted. `onFile`
 * is told each file that is used.
 */
export async function openImageSource(
  location: ImageLocation,
  baseDirectory: string,
  signal: AbortSignal,
  onFile?: (file: string) => void,
): Promise<ImageSource> {
  const { ociLayout, dockerArchive } = location;
  const text = ociLayout ?? dockerArchive;
  if (text === undefined || (ociLayout !== undefined && dockerArchive !== undefined)) {
    throw new Error('an image location is one of ociLayout and dockerArchive');
  }
  const { path, ref } = await splitReference(resolve(baseDirectory, text));
  const opened = await openBundle(path, signal);
  const bundle: Bundle = {
    ...opened,
    async find(name) {
      const range = await opened.find(name);
      if (range !== undefined) onFile?.(range.file);
      return range;
    },
  };
  return ociLayout !== undefined ? ociLayoutSource(bundle, ref) : dockerArchiveSource(bundle, ref);
}

/** `path`, `path:tag` or `path@digest`: the longest beginning that exists is the path. Throws `not-found`. */
export async function splitReference(text: string): Promise<{ path: string; ref?: string | undefined }> {
  if (await exists(text)) return { path: text };
  const afterDrive = /^[A-Za-z]:/.test(text) ? 2 : 0;
  for (let at = text.length - 1; at > afterDrive; at--) {
    const isSeparator = text[at] === ':' || text[at] === '@';
    if (isSeparator && (await exists(text.slice(0, at)))) {
      return { path: text.slice(0, at), ref: text.slice(at + 1) };
    }
  }
  throw new CimletError('not-found', `open image ${text}: there is no such file or directory`, {
    hint: 'a path in a manifest starts at its folder, one on the command line at the working folder',
  });
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ENAMETOOLONG') return false;
    throw classify(error, `open image ${path}`);
  }
}
