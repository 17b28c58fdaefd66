/** A snapshotter on a host, for the cases of snapshotter.ts. */

import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ChainId, Host, LayerFormat } from '../../src/hosts/host.ts';
import { chainIdOn, mountVolumeGuid } from '../../src/hosts/identity.ts';
import { Snapshotter, snapshotKeyOf } from '../../src/snapshots/snapshotter.ts';
import { openState } from '../../src/state/state.ts';
import { type LayerItem, layerItems, writeLayerBlob } from '../support/host-layers.ts';
import { context, type SnapshotterFixture } from './snapshotter.ts';

/** Runs a case on a host of its own. `release` takes away what the case left mounted below the directory. */
export async function withSnapshotter(
  format: LayerFormat,
  open: (root: string) => Host,
  run: (fixture: SnapshotterFixture) => Promise<void>,
  release: (directory: string, host: Host) => Promise<void> | void,
): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'cimlet-snapshotter-'));
  const root = join(directory, 'root');
  await mkdir(root);
  const host = open(root);
  let state = openState(root, { readOnly: false });
  try {
    const snapshotter = new Snapshotter(host, state);
    // What has no parent is of the format in question.
    const prepare = snapshotter.prepare.bind(snapshotter);
    snapshotter.prepare = (name, parent, options, effect) =>
      prepare(name, parent, parent === undefined ? { ...options, format } : options, effect);
    await run({
      snapshotter,
      reopen: async () => {
        state.close();
        state = openState(root, { readOnly: false });
        return new Snapshotter(host, state);
      },
      close: () => state.close(),
      mount: async (name) => {
        const { kind, chain } = new Snapshotter(host, state).stat(name);
        const isActive = kind === 'active';
        if (!isActive && format === 'BlockCIM' && chain.length > 1)
          await host.mergeChain({ chain, format }, context);
        const { path } = await host.mount(
          {
            volumeGuid: mountVolumeGuid(name),
            path: join(directory, 'mounts', name),
            chain,
            format,
            access: isActive ? 'ReadWrite' : 'ReadOnly',
            view: 'Kernel',
            ...(isActive ? { snapshot: snapshotKeyOf(name) } : {}),
          },
          context,
        );
        return path;
      },
      unmount: (name) => host.dismount(mountVolumeGuid(name), context),
      unpack: async (layers) => {
        const chain: ChainId[] = [];
        for (const files of layers) {
          const items = layerItems(files);
          const { blob, diffId } = await writeLayerBlob(
            directory,
            format === 'LCOW' ? asLinux(items) : items,
          );
          const chainId = chainIdOn(chain.at(-1), diffId);
          const request = { chainId, diffId, parents: [...chain], format, blob };
          await host.unpackLayer(request, context);
          await host.commitLayer(request, context);
          chain.push(chainId);
        }
        return chain.at(-1) as ChainId;
      },
    });
  } finally {
    state.close();
    await release(directory, host);
    await rm(directory, { recursive: true, force: true });
  }
}

/** The same entries as a Linux layer has them: not below `Files`. */
function asLinux(items: readonly LayerItem[]): LayerItem[] {
  return items.map((item) => ({
    ...item,
    name: item.name.replace(/^Files\//, './'),
    mode: item.type === 'directory' ? 0o755 : 0o644,
  }));
}
