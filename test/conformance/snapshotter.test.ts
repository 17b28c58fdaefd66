import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'vitest';
import { createEmbeddedHost } from '../../src/hosts/embedded/embedded-host.ts';
import type { Capabilities, ChainId, Host, LayerFormat } from '../../src/hosts/host.ts';
import { chainIdOn, mountVolumeGuid } from '../../src/hosts/identity.ts';
import { BLOCK_CAPABILITIES, MemoryHost, SNAPSHOT_CAPABILITIES } from '../../src/hosts/memory/memory-host.ts';
import { Snapshotter, snapshotKeyOf } from '../../src/snapshots/snapshotter.ts';
import { openState } from '../../src/state/state.ts';
import { type LayerItem, layerItems, writeLayerBlob } from '../support/host-layers.ts';
import { unmountBelow } from '../support/mounts.ts';
import { requireOrSkip } from '../support/requirements.ts';
import { context, type Holds, type SnapshotterFixture, snapshotterCases } from './snapshotter.ts';

/** What layers of a format can hold on the embedded host. */
const HOLDS: Partial<Record<LayerFormat, readonly Holds[]>> = {
  ForkedCIM: ['files'],
  BlockCIM: ['files'],
  LCOW: ['files', 'owners', 'modes'],
};

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
requireOrSkip('overlayfs over kernel views', capabilities.active.available);

for (const [format, holds] of Object.entries(HOLDS) as [LayerFormat, readonly Holds[]][])
  suite(`the embedded host with ${format}`, format, holds, capabilities, (root) =>
    createEmbeddedHost({ root }),
  );
suite('the in-memory host', 'ForkedCIM', [], undefined, () => {
  return new MemoryHost({ capabilities: { ...BLOCK_CAPABILITIES, ...SNAPSHOT_CAPABILITIES } });
});

function suite(
  name: string,
  format: LayerFormat,
  holds: readonly Holds[],
  available: Capabilities | undefined,
  open: (root: string) => Host,
): void {
  const can =
    available === undefined || (available.active.available && available[`${format}.mount`].available);
  describe(`snapshots with names on ${name} keep containerd's contract`, () => {
    for (const { name: title, needs, run } of snapshotterCases) {
      const missing = needs.filter((need) => !holds.includes(need));
      const suffix = missing.length === 0 ? '' : ` [no ${missing.join(', ')}]`;
      it.skipIf(!can || missing.length > 0)(title + suffix, () => withFixture(format, open, run));
    }
  });
}

async function withFixture(
  format: LayerFormat,
  open: (root: string) => Host,
  run: (fixture: SnapshotterFixture) => Promise<void>,
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
    unmountBelow(directory);
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
