/** The tar of a layer on its way into one: a blob's, or what was written to a snapshot. Runs in the worker. */

import { createHash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import type { CimReader } from '../../cim/reader.ts';
import { classify } from '../../errors.ts';
import { lowerViewOf } from '../../layers/lower-view.ts';
import type { DiffId } from '../host.ts';
import { chainIdOn } from '../identity.ts';
import type { JobControl } from '../job-thread.ts';
import { inBatches } from '../tar-file.ts';
import { nameCulprit, openJobTar } from '../unpack-input.ts';
import { withCim } from './build-view.ts';
import { viewRootPath } from './cim-view.ts';
import { exportLinuxUpper } from './export-linux-upper.ts';
import { exportUpper } from './export-upper.ts';
import type { LayerIdentity, UnpackInput, UpperTar } from './jobs.ts';

/** A layer's uncompressed tar. A chunk is good until the next. */
export interface LayerTar {
  chunks: AsyncIterable<Uint8Array>;
  /** Whose tar it was; known once it has been read to its end. */
  identity(): LayerIdentity;
}

/**
 * Has `write` make a layer of a tar, which is digested while it is read: nothing is read twice. `lower` are the paths of the layers below, to tell
 * their faults from the tar's.
 */
export async function withLayerTar<T extends { warnings: string[] }>(
  { source, chainId, parent }: UnpackInput,
  lower: readonly string[],
  control: JobControl,
  write: (tar: LayerTar) => Promise<T>,
): Promise<T & LayerIdentity> {
  if (source.kind === 'blob') {
    const identity = { chainId, diffId: source.diffId };
    try {
      const written = await write({ chunks: openJobTar(source, control), identity: () => identity });
      return { ...written, ...identity };
    } catch (error) {
      throw nameCulprit(error, source, lower);
    }
  }
  const warnings: string[] = [];
  try {
    return await withUpperTar(source, control.signal, warnings, async (chunks) => {
      const digest = createHash('sha256');
      const digested = digestWhileRead(chunks, digest, control);
      let identity: LayerIdentity | undefined;
      const identify = () => {
        identity ??= identityOf(`sha256:${digest.digest('hex')}` as DiffId, parent);
        return identity;
      };
      const written = await write({ chunks: digested, identity: identify });
      return { ...written, ...identify(), warnings: [...warnings, ...written.warnings] };
    });
  } catch (error) {
    throw classify(error, `make a layer of ${source.upper}`);
  }
}

function identityOf(diffId: DiffId, parent: UnpackInput['parent']): LayerIdentity {
  return { chainId: chainIdOn(parent, diffId), diffId };
}

/** In between others get their turn: who writes has the kernel write back meanwhile. */
async function* digestWhileRead(
  chunks: Iterable<Uint8Array>,
  digest: { update(bytes: Uint8Array): unknown },
  { checkpoint, progress }: JobControl,
): AsyncGenerator<Uint8Array, void, undefined> {
  let done = 0;
  for (const batch of inBatches(chunks)) {
    checkpoint();
    digest.update(batch);
    yield batch;
    done += batch.length;
    progress({ phase: 'exporting', done, total: done });
    await setImmediate();
  }
}

/** Does something with the tar of what was written over a chain; what has to be known besides goes to `warnings`. */
export async function withUpperTar<T>(
  { upper: path, cim: shown, isLinux }: UpperTar,
  signal: AbortSignal,
  warnings: string[],
  use: (chunks: Iterable<Uint8Array>) => T | Promise<T>,
): Promise<T> {
  const upper = Buffer.from(path);
  const warn = (message: string) => warnings.push(message);
  if (isLinux) return use(exportLinuxUpper(upper, warn));
  const over = (cim: CimReader | undefined) => {
    const lower = cim === undefined ? undefined : lowerViewOf(cim);
    const lowerRoot = cim === undefined ? '' : viewRootPath(cim);
    return use(exportUpper({ upper, lower, lowerRoot, warn }));
  };
  return shown === undefined ? over(undefined) : withCim(shown, signal, over);
}
