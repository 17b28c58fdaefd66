/** What was written to a snapshot, as a tar, and as the layer that it becomes. */

import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { CimletError } from '../../errors.ts';
import { throwIfAborted } from '../abort.ts';
import { whileRecorded } from '../exports.ts';
import type { CommitOptions, DiffId, Digest, EffectContext, UnpackRequest } from '../host.ts';
import { chainIdOn, snapshotGuid } from '../identity.ts';
import { type Layout, snapshotPath } from '../layout.ts';
import type { SnapshotRecord } from '../snapshot-records.ts';
import { runJob } from './run-job.ts';
import { withUpper } from './scratch.ts';
import { requireChain } from './shown-chain.ts';

const TAR = 'application/vnd.oci.image.layer.v1.tar';

/** Throws `failed-precondition` for views, and for what the format can't hold. */
export async function exportSnapshotTar(
  layout: Layout,
  record: SnapshotRecord,
  file: string,
  context: EffectContext,
): Promise<DiffId> {
  const id = snapshotGuid(record.request.key);
  return whileRecorded(layout, id, file, (temporary) => writeDiff(layout, record, file, temporary, context));
}

/** Does something with the request that makes it a layer; the layer's tar is in the snapshot's folder for as long as that takes. */
export async function withUnpackRequest<T>(
  layout: Layout,
  record: SnapshotRecord,
  { seal, vhdFooter }: CommitOptions,
  context: EffectContext,
  task: (request: UnpackRequest) => Promise<T>,
): Promise<T> {
  const { key, chain, format } = record.request;
  const [file, temporary] = diffFiles(snapshotPath(layout, snapshotGuid(key)));
  try {
    const diffId = await writeDiff(layout, record, file, temporary, context);
    const { size } = await stat(file);
    return await task({
      chainId: chainIdOn(chain.at(-1), diffId),
      diffId,
      parents: chain,
      format,
      blob: { file, offset: 0, size, digest: diffId as string as Digest, mediaType: TAR },
      seal,
      vhdFooter,
    });
  } finally {
    for (const path of [file, temporary]) await rm(path, { force: true });
  }
}

/** In a snapshot's folder, while it is committed: the tar of its layer, and that while it is written. */
export function diffFiles(folder: string): [file: string, temporary: string] {
  const file = join(folder, 'diff.tar');
  return [file, `${file}.part`];
}

async function writeDiff(
  layout: Layout,
  record: SnapshotRecord,
  file: string,
  temporary: string,
  context: EffectContext,
): Promise<DiffId> {
  const { key, kind, chain, format } = record.request;
  const operation = `export snapshot ${JSON.stringify(key)}`;
  throwIfAborted(context.signal, operation);
  if (kind === 'view')
    throw new CimletError('failed-precondition', `${operation}: it is a view, which has no changes`);
  const isLinux = format === 'LCOW';
  // What a Linux layer is made of says by itself what it hides; names of Windows layers have to be looked up below.
  const shown =
    isLinux || chain.length === 0 ? undefined : await requireChain(layout, record.request, operation);
  return withUpper(layout, record, async ({ upper }) => {
    const job = { kind: 'diff' as const, upper, cim: shown?.cim, isLinux, file, temporary, bytes: 0 };
    const { diffId, warnings } = await runJob<'diff'>(job, context);
    for (const warning of warnings) context.warn?.(warning);
    return diffId;
  });
}
