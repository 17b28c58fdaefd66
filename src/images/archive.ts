/** A layer that is a file of its own: what an image's configuration would say of it is found by reading it. */

import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { CimletError, classify } from '../errors.ts';
import type { DiffId, Digest, LayerBlob } from '../hosts/host.ts';
import { type Compression, decodeFile, detectCompression } from './decode.ts';

export interface ResolvedArchive {
  diffId: DiffId;
  blob: LayerBlob;
}

const MEDIA_TYPES: Record<Compression, string> = {
  none: 'application/vnd.oci.image.layer.v1.tar',
  gzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  zstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
};

/**
 * Reads a layer's tar (plain, gzip or zstd, told apart by its first bytes) once, for its digest and diff ID. `file` is
 * absolute. Throws `not-found`; `failed-precondition` for what isn't a file; `corrupt` for damaged data, no tar at
 * all, or another digest than `digest`; `cancelled`.
 */
export async function resolveArchive(
  file: string,
  digest: Digest | undefined,
  signal: AbortSignal,
): Promise<ResolvedArchive> {
  const operation = `read archive ${file}`;
  const size = await sizeOf(file, operation);
  const stored = createHash('sha256');
  const content = createHash('sha256');
  let compression: Compression | undefined;
  let start: Buffer = Buffer.alloc(0);
  const chunks = decodeFile({ file, size }, operation, signal, (chunk) => {
    compression ??= detectCompression(chunk);
    stored.update(chunk);
  });
  for await (const chunk of chunks) {
    if (start.length < TAR_BLOCK) start = Buffer.concat([start, chunk.subarray(0, TAR_BLOCK)]);
    content.update(chunk);
  }
  const found = `sha256:${stored.digest('hex')}` as Digest;
  if (digest !== undefined && found !== digest) {
    throw new CimletError('corrupt', `${operation}: expected digest ${digest}, found ${found}`, {
      hint: 'copy the archive again, or set the digest it has',
    });
  }
  if (!isTar(start)) {
    throw new CimletError('corrupt', `${operation}: it holds no tar`, {
      hint: 'a layer archive is a tar, plain or compressed with gzip or zstd',
    });
  }
  const diffId = `sha256:${content.digest('hex')}` as DiffId;
  const blob = { file, offset: 0, size, digest: found, mediaType: MEDIA_TYPES[compression ?? 'none'] };
  return { diffId, blob };
}

async function sizeOf(file: string, operation: string): Promise<number> {
  try {
    const found = await stat(file);
    if (found.isFile()) return found.size;
  } catch (error) {
    throw classify(
      error,
      operation,
      'a path in a manifest starts at its folder, one on the command line at the working folder',
    );
  }
  throw new CimletError('failed-precondition', `${operation}: not a file`);
}

const TAR_BLOCK = 512;
const CHECKSUM_START = 148;
const CHECKSUM_END = 156;

/** Whether the first block is a tar header with its right checksum, or the end of an empty tar. */
function isTar(start: Buffer): boolean {
  if (start.length < TAR_BLOCK) return false;
  let sum = 0;
  for (let at = 0; at < TAR_BLOCK; at++) {
    const isChecksum = at >= CHECKSUM_START && at < CHECKSUM_END;
    sum += isChecksum ? 0x20 : (start[at] ?? 0);
  }
  const text = start.toString('latin1', CHECKSUM_START, CHECKSUM_END).replace(/[\0 ]/g, '');
  const isEnd = start.subarray(0, TAR_BLOCK).every((byte) => byte === 0);
  return isEnd || (/^[0-7]+$/.test(text) && Number.parseInt(text, 8) === sum);
}
