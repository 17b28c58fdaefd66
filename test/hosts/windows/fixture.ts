/** The Windows host in a directory of its own. Runs inside of a Windows process. */

import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { lstat, mkdir, mkdtemp, readdir, readFile, rm, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { LayerFormat, LayerRef } from '../../../src/hosts/host.ts';
import { hexOf, shownVolumeGuid, snapshotGuid } from '../../../src/hosts/identity.ts';
import { createWindowsHost } from '../../../src/hosts/windows/windows-host.ts';
import { openWindowsApi } from '../../../src/native/windows/windows.ts';
import type { HostFixture } from '../../conformance/host.ts';
import { layerItems, writeLayerBlob } from '../../support/host-layers.ts';

const SUFFIXES: Record<LayerFormat, string> = {
  ForkedCIM: '',
  BlockCIM: '.block',
  WCIFS: '.wcifs',
  LCOW: '.lcow',
};

export async function withWindowsFixture<T>(run: (fixture: HostFixture) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), 'cimlet-host-'));
  try {
    await mkdir(join(directory, 'workspace'));
    await mkdir(join(directory, 'files'));
    return await run(windowsFixture(directory));
  } finally {
    await dismountAll(join(directory, 'root'));
    await rm(directory, { recursive: true, force: true });
  }
}

/** What a case leaves mounted would be in the way of the next one: volumes are the machine's. */
async function dismountAll(root: string): Promise<void> {
  const host = createWindowsHost({ root });
  const { signal } = new AbortController();
  for (const { volumeGuid } of (await host.observe({ signal })).mounts)
    await host.dismount(volumeGuid, { signal });
}

function windowsFixture(directory: string): HostFixture {
  const root = join(directory, 'root');
  const open = () => createWindowsHost({ root });
  const { bindfilter, cimfs, computestorage, kernel32, vmcompute } = openWindowsApi();
  const snapshotFolder = ({ chainId, format }: LayerRef) =>
    join(root, 'snapshots', hexOf(chainId) + SUFFIXES[format]);
  return {
    host: open(),
    view: 'Kernel',
    forksHoldOnToFiles: true,
    keepsNotAllTimes: true,
    diskForEachSnapshot: true,
    workspace: join(directory, 'workspace'),
    files: join(directory, 'files'),
    reopen: async () => open(),
    makeLayer: (files) => writeLayerBlob(directory, layerItems(files)),
    readFile: async (path) => (existsSync(path) ? readFile(path, 'utf8') : undefined),
    writeFile: (path, content) => writeFile(path, content),
    removeFile: (path) => unlink(path),
    makeFile: (path) => writeFile(path, 'foreign'),
    makeDirectory: async (path) => void (await mkdir(path)),
    fingerprint: () => fingerprint(root),
    coverByHand: async ({ path }) => {
      const above = dirname(path.replaceAll('/', '\\'));
      await mkdir(join(directory, 'elsewhere'));
      await bindfilter.setupFilter(above, join(directory, 'elsewhere'), 0);
      return () => bindfilter.removeMapping(above);
    },
    unmountByHand: async ({ path, volumeGuid, format, snapshot }) => {
      const place = path.replaceAll('/', '\\');
      if (snapshot === undefined) await bindfilter.removeMapping(place);
      else await kernel32.deleteVolumeMountPoint(place);
      const scratch =
        snapshot === undefined
          ? join(root, 'scratches', `view-${volumeGuid}`)
          : join(root, 'snapshots', snapshotGuid(snapshot));
      if (format === 'WCIFS') await vmcompute.unprepareLayer(scratch);
      else if (snapshot !== undefined)
        await computestorage.detachOverlayFilter(await vmcompute.getLayerMountPath(scratch), {
          SchemaVersion: { Major: 2, Minor: 1 },
          FilterType: 'UnionFS',
        });
      if (format === 'WCIFS' || snapshot !== undefined) await vmcompute.deactivateLayer(scratch);
      if (format !== 'WCIFS') await cimfs.dismountImage(shownVolumeGuid(root, volumeGuid));
    },
    damageLayer: async (ref) => {
      if (ref.format === 'BlockCIM') return unlink(join(snapshotFolder(ref), 'layer.bcim'));
      if (ref.format === 'WCIFS')
        return rm(join(snapshotFolder(ref), hexOf(ref.chainId).slice(0, 32), 'Files'), { recursive: true });
      const record = JSON.parse(await readFile(join(snapshotFolder(ref), 'layer.json'), 'utf8')) as {
        cimFiles: { name: string }[];
      };
      const region = record.cimFiles.find(({ name }) => name.startsWith('region_'));
      await unlink(join(root, 'cim-layers', region?.name ?? 'no region'));
    },
    loseSnapshot: (ref) => rm(snapshotFolder(ref), { recursive: true }),
    damageMerge: ({ chainId }) => unlink(join(root, 'snapshots', `${hexOf(chainId)}.merged`, 'merged.bcim')),
  };
}

/** Neither what exports were at, nor when CimFS was at work, is part of what a root holds. */
const NO_CONTENT = new Set(['exports', 'cimfs-work.json']);

/** Names, sizes, times and contents of everything below a root. */
async function fingerprint(root: string): Promise<string> {
  const hash = createHash('sha256');
  const visit = async (current: string): Promise<void> => {
    const stats = await lstat(current, { bigint: true });
    hash.update(`${current} ${stats.mode} ${stats.size} ${stats.mtimeNs} ${stats.ino}\n`);
    if (stats.isDirectory())
      for (const name of (await readdir(current)).sort()) await visit(join(current, name));
    else if (stats.isFile()) hash.update(await readFile(current));
  };
  if (!existsSync(root)) return 'no root';
  for (const name of (await readdir(root)).sort()) if (!NO_CONTENT.has(name)) await visit(join(root, name));
  return hash.digest('hex');
}
