/** Exports a layer of `C:\store`, which is built when it isn't there. Argument: the tar. */

import { mkdir } from 'node:fs/promises';
import { createWindowsHost } from '../../../src/hosts/windows/windows-host.ts';
import { BASE, build, context, last, stack, UPPER } from '../../conformance/host.ts';
import { layerItems, writeLayerBlob } from '../../support/host-layers.ts';

await mkdir('C:\\blobs', { recursive: true });
const makeLayer = (files: typeof BASE) => writeLayerBlob('C:\\blobs', layerItems(files));
const requests = await stack({ makeLayer } as never, BASE, UPPER);
const host = createWindowsHost({ root: 'C:\\store' });
await build(host, requests);
await host.exportLayer(last(requests), process.argv[2] ?? '', context);
