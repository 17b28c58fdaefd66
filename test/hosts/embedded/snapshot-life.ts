import { existsSync, writeFileSync } from 'node:fs';
import type { Host, MountRequest, SnapshotRequest } from '../../../src/hosts/host.ts';

const context = { signal: new AbortController().signal };

export interface Life {
  snapshot: SnapshotRequest;
  second: SnapshotRequest;
  mount: MountRequest;
}

/** Prepared, mounted, written to, dismounted, and committed; another one, which shares its scratch at first, is removed. */
export async function takeThroughLife(host: Host, { snapshot, second, mount }: Life): Promise<string> {
  await host.prepareSnapshot(snapshot, context);
  await host.prepareSnapshot(second, context);
  await host.mount(mount, context);
  if (!existsSync(`${mount.path}/new`)) writeFileSync(`${mount.path}/new`, 'new');
  await host.dismount(mount.volumeGuid, context);
  await host.removeSnapshot(second.key, context);
  return (await host.commitSnapshot(snapshot.key, {}, context)).chainId;
}
