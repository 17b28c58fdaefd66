/**
 * A store's life in a Windows process: cleaned, filled, shown, emptied. Wherever it was killed before, it must come
 * through. Prints `done` in the end.
 */

import assert from 'node:assert/strict';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { mountVolumeGuid } from '../../../src/hosts/identity.ts';
import { createWindowsHost } from '../../../src/hosts/windows/windows-host.ts';
import { BASE, context, look, stack, UPPER } from '../../conformance/host.ts';
import { layerItems, writeLayerBlob } from '../../support/host-layers.ts';

const BLOBS = 'C:\\blobs';
const PATH = 'C:\\shown\\view';

await mkdir(BLOBS, { recursive: true });
const host = createWindowsHost({ root: 'C:\\store' });
await host.cleanLeftovers(context);
assert.deepEqual((await look(host)).leftovers, []);

const fixture = { makeLayer: (files: typeof BASE) => writeLayerBlob(BLOBS, layerItems(files)) };
const requests = await stack({ ...fixture, format: 'BlockCIM' } as never, BASE, UPPER, { 'top.txt': 't' });
const chain = requests.map(({ chainId }) => chainId);
for (const request of requests) {
  await host.unpackLayer(request, context);
  await host.commitLayer(request, context);
}
await host.mergeChain({ chain, format: 'BlockCIM' }, context);
const volumeGuid = mountVolumeGuid('view');
await host.mount(
  { volumeGuid, path: PATH, chain, format: 'BlockCIM', access: 'ReadOnly', view: 'Kernel' },
  context,
);
assert.deepEqual((await readdir(PATH)).sort(), ['a.txt', 'dir', 'new', 'top.txt']);
assert.equal(await readFile(`${PATH}\\a.txt`, 'utf8'), 'A');
await host.dismount(volumeGuid, context);
for (const request of requests.toReversed()) await host.removeLayer(request, context);
const { layers, merges, mounts, leftovers, paths } = await look(host, ['C:\\shown']);
assert.deepEqual([layers, merges, mounts, leftovers], [[], [], [], []]);
assert.equal(paths['C:\\shown']?.kind, 'absent');
console.log('done');
