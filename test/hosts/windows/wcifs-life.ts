/** A store of WCIFS layers: cleaned, filled, shown, emptied. Wherever it was killed before, it must come through. Prints `done`. */

import assert from 'node:assert/strict';
import { mkdir, readdir } from 'node:fs/promises';
import { mountVolumeGuid } from '../../../src/hosts/identity.ts';
import { createWindowsHost } from '../../../src/hosts/windows/windows-host.ts';
import { BASE, build, context, last, look, stack, UPPER } from '../../conformance/host.ts';
import { layerItems, writeLayerBlob } from '../../support/host-layers.ts';

await mkdir('C:\\life-blobs', { recursive: true });
const host = createWindowsHost({ root: 'C:\\life' });
await host.cleanLeftovers(context);
assert.deepEqual((await look(host)).leftovers, []);
const makeLayer = (files: typeof BASE) => writeLayerBlob('C:\\life-blobs', layerItems(files));
const requests = await stack({ makeLayer, format: 'WCIFS' } as never, BASE, UPPER);
await build(host, requests);
const chain = requests.map(({ chainId }) => chainId);
await host.exportLayer(last(requests), 'C:\\life-blobs\\exported.tar', context);
const [volumeGuid, path] = [mountVolumeGuid('life'), 'C:\\shown\\life'];
await host.mount({ volumeGuid, path, chain, format: 'WCIFS', access: 'ReadOnly', view: 'Kernel' }, context);
assert.deepEqual((await readdir(path)).sort(), ['a.txt', 'dir', 'new']);
await host.dismount(volumeGuid, context);
for (const request of requests.toReversed()) await host.removeLayer(request, context);
const { layers, mounts, leftovers } = await look(host);
assert.deepEqual([layers, mounts, leftovers], [[], [], []]);
console.log('done');
