/** What was written to a snapshot, as a tar, and as the layer that it becomes. */

import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { CimletError } from '../../errors.ts';
import { removeTree } from '../directories.ts';
import { whileRecorded } from '../exports.ts';
import type {
  CommitOptions,
  DiffId,
  Digest,
  EffectContext,
  SnapshotRequest,
  UnpackRequest,
} from '../host.ts';
import { chainIdOn, snapshotGuid } from '../identity.ts';
import { snapshotPath } from '../layout.ts';
import { holding } from './acquire.ts';
import { completeBaseLayer } from './base-layer-folder.ts';
import { runJob } from './jobs.ts';
import { DISK } from './scratches.ts';
import { scratchFolder, scratchPlaces } from './snapshot-scratch.ts';
import { withSnapshotTrees } from './snapshot-trees.ts';
import { DIFF_FILE, refuseMounted, sharersOf } from './snapshots.ts';
import type { Gallery } from './views.ts';

const TAR = 'application/vnd.oci.image.layer.v1.tar';

/** Throws `failed-precondition` for a view, and for what no tar can hold. */
export async function exportSnapshotTar(
  gallery: Gallery,
  request: SnapshotRequest,
  file: string,
  context: EffectContext,
): Promise<DiffId> {
  const id = snapshotGuid(request.key);
  return whileRecorded(gallery.layout, id, file, (temporary) =>
    writeDiff(gallery, request, { file, temporary }, context),
  );
}

/** Runs `use` with the request that makes it a layer; its tar is in the snapshot's folder meanwhile. */
export async function withUnpackRequest<T>(
  gallery: Gallery,
  request: SnapshotRequest,
  options: CommitOptions,
  context: EffectContext,
  use: (unpack: UnpackRequest) => Promise<T>,
): Promise<T> {
  const { key, kind, chain, format } = request;
  const file = join(snapshotPath(gallery.layout, snapshotGuid(key)), DIFF_FILE);
  const temporary = `${file}.part`;
  const remove = async () => {
    for (const each of [temporary, file]) await removeTree(each);
  };
  return holding({ acquire: remove, release: remove }, async () => {
    if (chain.length === 0 && format === 'WCIFS' && kind !== 'view')
      completeBaseLayer(`${await scratchFolder(gallery.layout, request)}\\`);
    const diffId = await writeDiff(gallery, request, { file, temporary }, context);
    const { size } = await stat(file);
    return use({
      chainId: chainIdOn(chain.at(-1), diffId),
      diffId,
      parents: chain,
      format,
      blob: { file, offset: 0, size, digest: diffId as string as Digest, mediaType: TAR },
      ...options,
    });
  });
}

async function writeDiff(
  gallery: Gallery,
  request: SnapshotRequest,
  target: { file: string; temporary: string },
  context: EffectContext,
): Promise<DiffId> {
  const refuse = (why: string) =>
    new CimletError('failed-precondition', `export snapshot ${request.key}: ${why}`);
  if (request.kind === 'view') throw refuse('it is a view, which has no changes');
  if (request.format === 'LCOW') return writeLinuxDiff(gallery, request, target, context);
  if (request.scratch?.unformatted === true) throw refuse('this host has no file system in its scratch');
  const { privileges } = gallery;
  return withSnapshotTrees(gallery, request, context, async (trees) => {
    // A volume has what a layer has in `Files`; the folder of a snapshot without parents is laid out as a layer.
    const below = trees.lower === undefined ? '' : 'Files';
    const job = { kind: 'export-tree', ...trees, below, ...target } as const;
    // What a container wrote only SYSTEM may read; an administrator reads it as a backup does.
    const { diffId } = await privileges.withPrivileges(['SeBackupPrivilege'], () => runJob(job, context));
    return diffId;
  });
}

/** Guests have to have let go of the disk: Windows shows nothing of it, so that it is read as it lies there. */
async function writeLinuxDiff(
  { layout }: Gallery,
  request: SnapshotRequest,
  target: { file: string; temporary: string },
  context: EffectContext,
): Promise<DiffId> {
  const { key, scratch } = request;
  await refuseMounted(layout, key, `export snapshot ${key}`);
  const disk = join(await scratchFolder(layout, request), DISK);
  const isShared = scratch?.shareWith !== undefined || (await sharersOf(layout, key)).length > 0;
  const places = await scratchPlaces(layout, request);
  const job = { kind: 'export-scratch', disk, ...places, isShared, bytes: 0 } as const;
  const { diffId } = await runJob<'export-scratch'>({ ...job, ...target }, context);
  return diffId;
}
