/** Level, not edge: records that say "being done" are settled by what the host shows to be done. */

import type { HostState } from '../hosts/host.ts';
import type { State } from '../state/state.ts';
import type { Scope } from './scope.ts';
import { indexLayers, snapshotId } from './situation.ts';
import type { Plan } from './types.ts';

/**
 * Turns intents of an interrupted run into facts where the host shows that they came true, and adopts layers the plan
 * builds on that are on the host but not in the records (a lost state database).
 */
export function settleRecords(
  state: State,
  { observed, plan, scope }: { observed: HostState; plan: Plan; scope?: Scope | undefined },
): void {
  // What wasn't looked at isn't gone.
  const isWhole = scope === undefined;
  const layers = indexLayers(observed.layers);
  const mounts = new Map(observed.mounts.map((mount) => [mount.volumeGuid, mount]));
  const records = state.records();
  const recorded = indexLayers(records.snapshots);
  state.transaction(() => {
    for (const record of records.snapshots) {
      if (record.state === 'committed') continue;
      const layer = layers.get(snapshotId(record));
      if (layer !== undefined && layer.faults.length === 0) state.recordSnapshot(layer);
      else if (isWhole && layer === undefined && record.state === 'removing') state.forgetSnapshot(record);
    }
    for (const record of records.mounts) {
      if (record.state === 'mounted') continue;
      const mount = mounts.get(record.volumeGuid);
      if (mount?.state === 'mounted') state.recordMount(mount);
      else if (isWhole && mount === undefined && record.state === 'removing')
        state.forgetMount(record.volumeGuid);
    }
    for (const id of layersUsed(plan)) {
      const layer = recorded.has(id) ? undefined : layers.get(id);
      if (layer !== undefined && layer.faults.length === 0) state.recordSnapshot(layer);
    }
  });
}

function layersUsed(plan: Plan): Set<string> {
  const used = new Set<string>();
  for (const { work } of plan.actions) {
    const chain =
      work.do === 'recordChain'
        ? { format: work.format, chainIds: work.chainIds }
        : work.do === 'mountView'
          ? { format: work.request.format, chainIds: work.request.chain }
          : undefined;
    if (chain === undefined) continue;
    for (const chainId of chain.chainIds) used.add(snapshotId({ chainId, format: chain.format }));
  }
  return used;
}
