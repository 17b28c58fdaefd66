/** The CIMs that are mounted on the machine, and which of them are a root's. */

import { CimletError, describeError } from '../../errors.ts';
import { volumePath } from '../../native/windows/guid.ts';
import type { Kernel32 } from '../../native/windows/kernel32.ts';
import { listDirectory } from '../directories.ts';
import { listExportFolders } from '../exports.ts';
import type { HostState, VolumeGuid } from '../host.ts';
import { exportVolumeGuids, lowerVolumeGuid, snapshotVolumeGuid } from '../identity.ts';
import { type Layout, parseFolderName } from '../layout.ts';
import type { MountRecord } from '../mount-records.ts';
import { parseSnapshotFolder } from '../snapshot-records.ts';
import { shownAs } from './view-state.ts';

/** Only those that the mount manager lists; why none is known when it doesn't. */
export async function observeCimVolumes(
  kernel32: Kernel32,
  layout: Layout,
  mounts: readonly MountRecord[],
): Promise<Pick<HostState, 'cimVolumes' | 'cimVolumesUnknown'>> {
  try {
    const paths: string[] = [];
    for (const path of await kernel32.findVolumes()) if (await isCim(kernel32, path)) paths.push(path);
    const ours = paths.length === 0 ? new Map<string, string>() : await volumesOf(layout, mounts);
    const cimVolumes = paths.map((path) => {
      const use = ours.get(path.toLowerCase());
      return { path, ...(use === undefined ? {} : { ours: use }) };
    });
    return { cimVolumes };
  } catch (error) {
    if (!(error instanceof CimletError)) throw error;
    return { cimVolumesUnknown: describeError(error) };
  }
}

/** What each volume shows that this root has or may have, by its path in lower case. */
async function volumesOf(layout: Layout, mounts: readonly MountRecord[]): Promise<Map<string, string>> {
  const { root } = layout;
  const volumes = new Map<string, string>();
  const add = (guid: VolumeGuid, use: string) => volumes.set(volumePath(guid).toLowerCase(), use);
  for (const name of await listDirectory(layout.snapshots)) {
    const snapshot = parseSnapshotFolder(name);
    if (snapshot !== undefined)
      add(snapshotVolumeGuid(root, snapshot.folder), `layers below snapshot folder ${snapshot.folder}`);
    const layer = parseFolderName(name);
    if (layer === undefined) continue;
    const folder = name.slice(layer.prefix.length);
    add(lowerVolumeGuid(root, folder), `layers below ${layer.chainId}`);
  }
  for (const { name, layer } of await listExportFolders(layout))
    for (const guid of exportVolumeGuids(root, name))
      add(guid, `export of ${parseFolderName(layer)?.chainId ?? layer}`);
  for (const record of mounts) add(shownAs(record), `mount at ${record.request.path}`);
  return volumes;
}

/** A volume that goes away, or that won't say what it is, is none. */
async function isCim(kernel32: Kernel32, path: string): Promise<boolean> {
  try {
    return (await kernel32.volumeInformation(path)).fileSystem.toLowerCase() === 'cimfs';
  } catch (error) {
    if (error instanceof CimletError) return false;
    throw error;
  }
}
