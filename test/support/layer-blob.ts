/** Layer blobs and scratch directories for tests. */

import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import type { DiffId, Digest, LayerBlob } from '../../src/hosts/host.ts';

/** A new directory, removed when the current test ends. */
export function makeTemporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'cimlet-test-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

export function sha256(bytes: Uint8Array): Digest & DiffId {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}` as Digest & DiffId;
}

/** Writes `bytes` as a blob file and describes it truthfully. */
export function writeBlob(directory: string, bytes: Uint8Array, name = 'blob'): LayerBlob {
  const file = join(directory, name);
  writeFileSync(file, bytes);
  const mediaType = 'application/vnd.oci.image.layer.v1.tar';
  return { file, offset: 0, size: bytes.length, digest: sha256(bytes), mediaType };
}
