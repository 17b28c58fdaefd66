/** What committing makes, against what unpacking the tar of the same snapshot makes. */

import { createHash } from 'node:crypto';
import {
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createEmbeddedHost } from '../../../src/hosts/embedded/embedded-host.ts';
import type {
  ChainId,
  CommitOptions,
  DiffId,
  Digest,
  Host,
  LayerFormat,
  MountRequest,
  ScratchOptions,
} from '../../../src/hosts/host.ts';
import { mountVolumeGuid } from '../../../src/hosts/identity.ts';
import { requireOrSkip } from '../../support/requirements.ts';
import { context, openBench } from './fixture.ts';

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const writable = requireOrSkip('overlayfs over kernel views', capabilities.active.available);
const FORMATS: LayerFormat[] = ['ForkedCIM', 'BlockCIM', 'LCOW'];
const SEALED: LayerFormat[] = ['BlockCIM', 'LCOW'];
const KEY = 'work';

/** An active snapshot on a chain, with something written to it. */
async function write(
  host: Host,
  path: string,
  chain: ChainId[],
  format: LayerFormat,
  change: (root: string) => void,
  scratch?: ScratchOptions,
): Promise<void> {
  await host.prepareSnapshot({ key: KEY, kind: 'active', chain, format, scratch }, context);
  const mount: MountRequest = {
    volumeGuid: mountVolumeGuid(KEY),
    path,
    chain,
    format,
    access: 'ReadWrite',
    view: 'Kernel',
    snapshot: KEY,
  };
  await host.mount(mount, context);
  change(path);
  await host.dismount(mount.volumeGuid, context);
}

/** Every file of a root by name, but for what only says when something was. */
function contents(root: string): [string, string][] {
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).sort();
  return files
    .filter((name) => statSync(join(root, name)).isFile() && !/^views\/|check\.json$/.test(name))
    .map((name) => [
      name,
      createHash('sha256')
        .update(readFileSync(join(root, name)))
        .digest('hex'),
    ]);
}

function writeBase(root: string): void {
  mkdirSync(join(root, 'dir'));
  writeFileSync(join(root, 'dir/kept'), 'kept');
  writeFileSync(join(root, 'dir/gone'), 'gone');
}

function writeSecond(root: string): void {
  writeFileSync(join(root, 'dir/second'), 'of the second layer');
  rmSync(join(root, 'dir/kept'));
}

function writeMore(root: string): void {
  for (const name of ['dir/gone', 'dir/second']) rmSync(join(root, name));
  // More than is read and written at once, so that it comes in pieces.
  writeFileSync(join(root, 'dir/large'), Buffer.alloc(3_500_001, 'not the same in every block: '));
  linkSync(join(root, 'dir/large'), join(root, 'another name'));
  for (let index = 0; index < 50; index++) writeFileSync(join(root, `file-${index}`), 'x'.repeat(index * 97));
}

describe.runIf(writable)('committing a snapshot', () => {
  it.each<[LayerFormat, CommitOptions]>([
    ['ForkedCIM', {}],
    ['BlockCIM', {}],
    ['BlockCIM', { vhdFooter: true }],
    ['BlockCIM', { seal: true }],
    ['LCOW', {}],
    ['LCOW', { seal: true }],
  ])('gives byte for byte what unpacking its tar gives (%s, %o)', async (format, options) => {
    const { host, directory, root } = await openBench();
    const path = join(directory, 'mounted');
    const chain: ChainId[] = [];
    for (const change of [writeBase, writeSecond]) {
      await write(host, path, chain, format, change);
      chain.push((await host.commitSnapshot(KEY, options, context)).chainId);
      if (format === 'BlockCIM' && chain.length > 1)
        await host.mergeChain({ chain: [...chain], format, ...options }, context);
    }
    await write(host, path, chain, format, writeMore);
    const file = join(directory, 'layer.tar');
    const diffId = await host.exportSnapshot(KEY, file, context);
    const told: ChainId[] = [];
    const onChainId = (chainId: ChainId) => told.push(chainId);
    const layer = await host.commitSnapshot(KEY, { ...options, onChainId }, context);
    expect(layer).toMatchObject({ diffId, format, parent: chain[1] });
    expect(told).toEqual([layer.chainId]);
    const committed = contents(root);

    await host.removeLayer(layer, context);
    const { size } = statSync(file);
    const digest = diffId as DiffId as string as Digest;
    const blob = { file, offset: 0, size, digest, mediaType: 'application/vnd.oci.image.layer.v1.tar' };
    const request = { chainId: layer.chainId, diffId, parents: chain, format, blob, ...options };
    await host.unpackLayer(request, context);
    await host.commitLayer(request, context);
    expect(contents(root)).toEqual(committed);
  });

  it.each(SEALED)(
    'seals a layer that is there without a seal, below what else is kept in its scratch of limited size (%s)',
    async (format) => {
      const { host, directory } = await openBench();
      const path = join(directory, 'mounted');
      const same = (top: string) => {
        writeFileSync(join(top, 'file'), 'the same');
        for (const name of [join(top, 'file'), top]) utimesSync(name, 1, 1);
      };
      await write(host, path, [], format, same);
      const { chainId } = await host.commitSnapshot(KEY, {}, context);
      const owner = { key: 'owner', kind: 'active' as const, chain: [], format };
      await host.prepareSnapshot({ ...owner, scratch: { bytes: 16 * 2 ** 20 } }, context);
      const shared = { ...owner, scratch: { shareWith: 'owner' } };
      await host.prepareSnapshot({ ...shared, key: 'above', chain: [chainId] }, context);
      const above = {
        volumeGuid: mountVolumeGuid('above'),
        path: join(directory, 'above'),
        chain: [chainId],
      };
      const how = { format, access: 'ReadWrite' as const, view: 'Kernel' as const };
      await host.mount({ ...above, ...how, snapshot: 'above' }, context);
      writeFileSync(join(directory, 'above/written'), 'kept');

      await write(host, path, [], format, same, { shareWith: 'owner' });
      const layer = await host.commitSnapshot(KEY, { seal: true }, context);
      expect(layer).toMatchObject({ chainId, rootHash: expect.stringMatching(/^sha256:/) });
      expect(readFileSync(join(directory, 'above/written'), 'utf8')).toBe('kept');
      expect(readFileSync(join(directory, 'above/file'), 'utf8')).toBe('the same');
      await host.dismount(above.volumeGuid, context);
    },
  );

  it.each(FORMATS)('again gives the layer that is there, which stays (%s)', async (format) => {
    const { host, directory, root } = await openBench();
    const path = join(directory, 'mounted');
    const commit = async () => {
      await write(host, path, [], format, (top) => {
        writeFileSync(join(top, 'file'), 'the same');
        // Else the time of the directory differs.
        for (const name of [join(top, 'file'), top]) utimesSync(name, 1, 1);
      });
      return host.commitSnapshot(KEY, {}, context);
    };
    const first = await commit();
    const before = contents(root);
    expect(await commit()).toEqual(first);
    expect(contents(root)).toEqual(before);
    expect((await host.observe(context)).leftovers).toEqual([]);
  });

  it.each(FORMATS)(
    'that fails or is cancelled when the layer is known leaves nothing of it (%s)',
    async (format) => {
      const { host, directory, root } = await openBench();
      await write(host, join(directory, 'mounted'), [], format, writeBase);
      const before = contents(root);
      const onChainId = () => {
        throw new Error('not that one');
      };
      await expect(host.commitSnapshot(KEY, { onChainId }, context)).rejects.toThrow('not that one');
      const controller = new AbortController();
      const cancelled = host.commitSnapshot(
        KEY,
        { onChainId: () => controller.abort() },
        { signal: controller.signal },
      );
      await expect(cancelled).rejects.toMatchObject({ code: 'cancelled' });
      expect(contents(root)).toEqual(before);
      const { leftovers, layers, snapshots } = await host.observe(context);
      expect([leftovers, layers, snapshots.length]).toEqual([[], [], 1]);
      await host.commitSnapshot(KEY, {}, context);
    },
  );
});
