/** The in-memory host for the conformance cases. Knows no test runner: it also runs in a Windows process. */

import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, posix } from 'node:path';
import { readLayerTree } from '../../src/hosts/memory/layer-reader.ts';
import { BLOCK_CAPABILITIES, MemoryHost, SNAPSHOT_CAPABILITIES } from '../../src/hosts/memory/memory-host.ts';
import { layerItems, writeLayerBlob } from '../support/host-layers.ts';
import type { HostFixture } from './host.ts';

const WORKSPACE = '/workspace';
const { dirname } = posix;

export function openMemoryHost(): MemoryHost {
  return new MemoryHost({
    readLayer: readLayerTree,
    capabilities: { ...BLOCK_CAPABILITIES, ...SNAPSHOT_CAPABILITIES },
  });
}

export async function withMemoryFixture(run: (fixture: HostFixture) => Promise<void>): Promise<void> {
  const blobs = await mkdtemp(join(tmpdir(), 'cimlet-memory-'));
  try {
    const files = join(blobs, 'files');
    await mkdir(files);
    await run(memoryFixture(blobs, files));
  } finally {
    await rm(blobs, { recursive: true, force: true });
  }
}

function memoryFixture(blobs: string, files: string): HostFixture {
  const host = openMemoryHost();
  const foreign = new Map<string, string>();
  return {
    host,
    view: 'Kernel',
    workspace: WORKSPACE,
    files,
    reopen: async () => host,
    makeLayer: (files) => writeLayerBlob(blobs, layerItems(files)),
    readFile: async (path) => {
      for (let directory = dirname(path); directory !== '/'; directory = dirname(directory)) {
        const view = host.viewAt(directory);
        if (view === undefined) continue;
        const content = view.get(`Files/${path.slice(directory.length + 1)}`);
        return content === undefined ? undefined : Buffer.from(content).toString();
      }
      return foreign.get(path);
    },
    writeFile: async (path, content) => writeAt(host, path, Buffer.from(content)),
    removeFile: async (path) => writeAt(host, path, undefined),
    makeFile: async (path) => {
      foreign.set(path, 'foreign');
      host.placeAt(path, { kind: 'file' });
      if (dirname(path) !== WORKSPACE) host.placeAt(dirname(path), { kind: 'directory' });
    },
    makeDirectory: async (path) => host.placeAt(path, { kind: 'empty-directory' }),
    fingerprint: async () => {
      const { layers, merges, mounts, snapshots, leftovers } = await host.observe({
        signal: new AbortController().signal,
      });
      return createHash('sha256')
        .update(JSON.stringify([layers, merges, mounts, snapshots, leftovers]))
        .digest('hex');
    },
    unmountByHand: async ({ volumeGuid }) => host.dropMount(volumeGuid),
    coverByHand: async ({ volumeGuid }) => {
      host.coverMount(volumeGuid);
      return async () => host.uncoverMount(volumeGuid);
    },
    damageLayer: async (ref) => host.damageLayer(ref, { code: 'file-missing', message: 'lost' }),
    loseSnapshot: async (ref) => host.dropLayer(ref),
    damageMerge: async (top) => host.damageMerge(top, { code: 'file-missing', message: 'lost' }),
  };
}

function writeAt(host: MemoryHost, path: string, content: Buffer | undefined): void {
  const mountPoint = path.split('/').slice(0, 3).join('/');
  host.writeAt(mountPoint, `Files${path.slice(mountPoint.length)}`, content);
}
