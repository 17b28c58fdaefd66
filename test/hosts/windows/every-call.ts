/**
 * What becomes of layers, merged CIMs and read-only mounts when a call of Windows fails, or is the last of a process. Prints as
 * JSON what was met, and what is left in the store when all is removed.
 */

import assert from 'node:assert/strict';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import type { ChainId, Host, MountRequest, UnpackRequest } from '../../../src/hosts/host.ts';
import { mountVolumeGuid } from '../../../src/hosts/identity.ts';
import { createWindowsHost } from '../../../src/hosts/windows/windows-host.ts';
import { endProcess } from '../../../src/native/windows/system.ts';
import { build, context, type LayerFiles, look, stack } from '../../conformance/host.ts';
import { layerItems, writeLayerBlob } from '../../support/host-layers.ts';
import { type Effect, type Met, meetEachCall } from './each-call.ts';

const UPPER = { 'a.txt': 'A', 'dir/b.txt': null };
const PATH = 'C:\\shown\\here';

/** What is met in a state of its own, after the effects before. */
const NOT_ENTRIES = /^Cim(?!CreateFile|WriteStream|CloseStream)/;
const SEALING = /Seal|Verif/;

const open = () => createWindowsHost({ root: 'C:\\store' });

async function effectsOf(format: 'ForkedCIM' | 'BlockCIM', seal: boolean): Promise<Effect[]> {
  const makeLayer = (files: LayerFiles) => writeLayerBlob('C:\\blobs', layerItems(files));
  const plain = await stack({ makeLayer, format } as never, { 'a.txt': 'a', 'dir/b.txt': 'b' }, UPPER);
  const requests = plain.map((request) => (seal ? { ...request, seal } : request));
  const [base, upper] = requests as [UnpackRequest, UnpackRequest];
  const chain: ChainId[] = requests.map(({ chainId }) => chainId);
  const merge = { chain, format, ...(seal ? { seal } : {}) };
  const volumeGuid = mountVolumeGuid(`${format} ${seal}`);
  const request: MountRequest = { volumeGuid, path: PATH, chain, format, access: 'ReadOnly', view: 'Kernel' };
  const bare = async (host: Host) => {
    await host.dismount(volumeGuid, context);
    await host.removeLayer(upper, context);
    await build(host, [base]);
  };
  const built = async (host: Host) => {
    await host.dismount(volumeGuid, context);
    await build(host, requests);
  };
  const shown = async (host: Host) => {
    await build(host, requests);
    if (format === 'BlockCIM') await host.mergeChain(merge, context);
    await host.mount(request, context);
    assert.equal(await readFile(`${PATH}\\a.txt`, 'utf8'), 'A');
  };
  const of = `${seal ? 'sealed ' : ''}${format}`;
  const only = seal ? SEALING : format === 'BlockCIM' ? NOT_ENTRIES : undefined;
  return [
    { name: `unpack ${of}`, prepare: bare, run: (host) => build(host, [upper]), only },
    ...(format === 'BlockCIM'
      ? [
          {
            name: `merge ${of}`,
            prepare: async (host: Host) => {
              await built(host);
              await host.removeMerge(upper, context);
            },
            run: (host: Host) => host.mergeChain(merge, context),
            only,
          },
        ]
      : []),
    {
      name: `mount ${of}`,
      prepare: async (host) => {
        await built(host);
        if (format === 'BlockCIM') await host.mergeChain(merge, context);
      },
      run: shown,
    },
    {
      name: `dismount ${of}`,
      prepare: shown,
      run: (host) => host.dismount(volumeGuid, context),
      isUndoing: true,
    },
  ];
}

async function meetAll(): Promise<{ met: Met[]; rest: string[] }> {
  await mkdir('C:\\blobs', { recursive: true });
  await mkdir('C:\\doubles', { recursive: true });
  const met: Met[] = [];
  for (const [format, seal] of [
    ['ForkedCIM', false],
    ['BlockCIM', false],
    ['BlockCIM', true],
  ] as const)
    for (const effect of await effectsOf(format, seal)) met.push(...(await meetEachCall(open, effect)));
  const host = open();
  for (const { volumeGuid } of (await look(host)).mounts) await host.dismount(volumeGuid, context);
  const { layers } = await look(host);
  for (const layer of layers.toSorted(
    (a, b) => Number(a.parent === undefined) - Number(b.parent === undefined),
  ))
    await host.removeLayer(layer, context);
  const rest = await readdir('C:\\store', { recursive: true });
  return { met, rest: rest.sort() };
}

// Threads of calls that don't return would be waited for.
const end = (code: number) => () => endProcess(code);
meetAll().then(
  (result) => process.stdout.write(JSON.stringify(result), end(0)),
  (error: Error) => process.stderr.write(`${error.stack}\n`, end(1)),
);
