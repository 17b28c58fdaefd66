/** What was written to a snapshot, as a tar, and as the layer that it becomes. */

import { CimletError } from '../../errors.ts';
import { throwIfAborted } from '../abort.ts';
import { whileRecorded } from '../exports.ts';
import type { CommitOptions, DiffId, EffectContext } from '../host.ts';
import { provisionalChainId, snapshotGuid } from '../identity.ts';
import type { Layout } from '../layout.ts';
import type { SnapshotRecord } from '../snapshot-records.ts';
import { checkUnpackRequest } from '../unpack-request.ts';
import type { UpperTar } from './jobs.ts';
import type { LayerPlan } from './layer-store.ts';
import { runJob } from './run-job.ts';
import { withUpper } from './scratch.ts';
import { requireChain } from './shown-chain.ts';

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

/** Has a layer made of what was written to a snapshot, by what it is called until its chain ID is known. */
export async function withLayerPlan<T>(
  layout: Layout,
  record: SnapshotRecord,
  { seal, vhdFooter }: CommitOptions,
  context: EffectContext,
  task: (plan: LayerPlan) => Promise<T>,
): Promise<T> {
  const { key, chain: parents, format } = record.request;
  const operation = `commit snapshot ${JSON.stringify(key)}`;
  return withUpperTar(layout, record, operation, context, (tar) => {
    const source = { ...tar, kind: 'upper' as const };
    const plan = { chainId: provisionalChainId(key), format, parents, source, seal, vhdFooter };
    checkUnpackRequest(plan);
    return task(plan);
  });
}

async function writeDiff(
  layout: Layout,
  record: SnapshotRecord,
  file: string,
  temporary: string,
  context: EffectContext,
): Promise<DiffId> {
  const operation = `export snapshot ${JSON.stringify(record.request.key)}`;
  return withUpperTar(layout, record, operation, context, async (tar) => {
    const job = { ...tar, kind: 'diff' as const, file, temporary, bytes: 0 };
    const { diffId, warnings } = await runJob<'diff'>(job, context);
    for (const warning of warnings) context.warn?.(warning);
    return diffId;
  });
}

async function withUpperTar<T>(
  layout: Layout,
  record: SnapshotRecord,
  operation: string,
  { signal }: EffectContext,
  task: (tar: UpperTar) => Promise<T>,
): Promise<T> {
  const { kind, chain, format } = record.request;
  throwIfAborted(signal, operation);
  if (kind === 'view')
    throw new CimletError('failed-precondition', `${operation}: it is a view, which has no changes`);
  const isLinux = format === 'LCOW';
  // What a Linux layer is made of says by itself what it hides; names of Windows layers have to be looked up below.
  const shown =
    isLinux || chain.length === 0 ? undefined : await requireChain(layout, record.request, operation);
  return withUpper(layout, record, signal, ({ upper }) => task({ upper, cim: shown?.cim, isLinux }));
}
