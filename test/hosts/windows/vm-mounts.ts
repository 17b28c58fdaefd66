/** Mounts in utility VMs by the Windows host, in a Windows process. Prints `done` in the end. */

import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import type { ChainId, LayerFormat, MountRequest, UnpackRequest } from '../../../src/hosts/host.ts';
import { chainIds, hexOf, mountVolumeGuid, shownVolumeGuid } from '../../../src/hosts/identity.ts';
import { createLayerDisk } from '../../../src/hosts/layer-disk.ts';
import { createWindowsHost } from '../../../src/hosts/windows/windows-host.ts';
import { BASE, build, context, look, rejects, stack, UPPER } from '../../conformance/host.ts';
import { type LayerItem, layerItems, writeLayerBlob } from '../../support/host-layers.ts';

const SYSTEMS = 'C:\\doubles\\systems';
const host = createWindowsHost({ root: 'C:\\store' });
await mkdir('C:\\blobs');
await mkdir(SYSTEMS, { recursive: true });

async function runVm(id: string, guestOs: string): Promise<void> {
  const basic = { Id: id, SystemType: 'VirtualMachine', RuntimeOsType: guestOs, RuntimeId: `run of ${id}` };
  await writeFile(`${SYSTEMS}\\${id}.json`, JSON.stringify(basic));
  await writeFile(`${SYSTEMS}\\${id}.guest.json`, '{"GuestConnectionInfo":{}}');
}

async function things(id: string): Promise<string[]> {
  return (await readdir(`${SYSTEMS}\\${id}.devices`)).sort();
}

function inVm(
  name: string,
  format: LayerFormat,
  chain: readonly ChainId[],
  more: Partial<MountRequest>,
): MountRequest {
  const base = {
    volumeGuid: mountVolumeGuid(name),
    chain,
    format,
    view: 'Kernel',
    access: 'ReadOnly',
  } as const;
  return { ...base, path: '/run/gcs/c/app/rootfs', utilityVM: 'linux', ...more };
}

async function linuxLayers(): Promise<void> {
  const tars: LayerItem[][] = [
    [
      { name: 'etc/', type: 'directory' },
      { name: 'etc/a', type: 'file', content: Buffer.from('A') },
    ],
    [{ name: 'etc/b', type: 'file', content: Buffer.from('B') }],
  ];
  const blobs = await Promise.all(tars.map((items) => writeLayerBlob('C:\\blobs', items)));
  const chain = chainIds(blobs.map(({ diffId }) => diffId));
  const requests = blobs.map(
    ({ blob, diffId }, index): UnpackRequest => ({
      chainId: chain[index] as ChainId,
      diffId,
      parents: chain.slice(0, index),
      format: 'LCOW',
      blob,
      seal: true,
    }),
  );
  await build(host, requests);
  const [base, top] = (await look(host)).layers;
  assert.deepEqual([base?.faults, base?.vhdFooter, top?.parent], [[], true, chain[0]]);
  assert.match(base?.rootHash ?? '', /^sha256:[0-9a-f]{64}$/);

  // The disk that any host makes of the layer.
  const tar = blobs[0]?.blob.file ?? '';
  const options = { verity: true, inlineData: false, maxSize: 128 * 2 ** 30, signal: context.signal };
  await createLayerDisk({ tar, file: 'C:\\blobs\\same.vhd', ...options });
  const disk = `C:\\store\\snapshots\\${hexOf(chain[0] ?? '')}.lcow\\layer.vhd`;
  assert.ok((await readFile(disk)).equals(await readFile('C:\\blobs\\same.vhd')));

  await runVm('linux', 'Linux');
  const request = inVm('lcow', 'LCOW', chain, {});
  const { utilityVM: _, ...onHost } = request;
  await rejects(host.mount({ ...onHost, path: 'C:\\x' }, context), 'unsupported-host');
  await writeFile('C:\\doubles\\faults.txt', 'HcsModifyComputeSystem 3 fail 80004005\n');
  await rejects(host.mount(request, context), 'native');
  assert.deepEqual([await things('linux'), (await look(host)).mounts], [[], []]);
  const view = await host.mount(request, context);
  const { rootHash: expectedRootHash = '' } = view;
  assert.match(expectedRootHash, /^sha256:[0-9a-f]{64}$/);
  assert.equal(view.utilityVM, 'linux');
  assert.deepEqual(await things('linux'), ['layers _run_gcs_c_app_rootfs', 'pmem 0', 'pmem 1']);
  assert.deepEqual(await host.mount({ ...request, expectedRootHash }, context), view);
  const [mount] = (await look(host)).mounts;
  assert.deepEqual([mount?.state, mount?.path, mount?.hcsStorage], ['mounted', request.path, undefined]);

  // Found again by the next process; used, so that nothing of it goes; taken away, also twice.
  const next = createWindowsHost({ root: 'C:\\store' });
  assert.equal((await look(next)).mounts[0]?.state, 'mounted');
  await rejects(
    next.removeLayer({ chainId: chain[0] as ChainId, format: 'LCOW' }, context),
    'failed-precondition',
  );
  await rm(disk);
  await next.unpackLayer(requests[0] as UnpackRequest, context);
  await rejects(next.commitLayer(requests[0] as UnpackRequest, context), 'busy');
  await next.dismount(request.volumeGuid, context);
  await next.commitLayer(requests[0] as UnpackRequest, context);
  assert.deepEqual(await things('linux'), []);
  await next.dismount(request.volumeGuid, context);
  assert.deepEqual((await look(next)).mounts, []);

  // A VM that ended has nothing any more: missing, and attached anew when it runs.
  await next.mount(request, context);
  await rm(`${SYSTEMS}\\linux.json`);
  await rm(`${SYSTEMS}\\linux.devices`, { recursive: true });
  assert.match((await look(next)).mounts[0]?.message ?? '', /does not run/);
  await rejects(next.mount(request, context), 'failed-precondition');
  await runVm('linux', 'Linux');
  await next.mount(request, context);
  await next.dismount(request.volumeGuid, context);
  for (const { chainId } of requests.toReversed())
    await next.removeLayer({ chainId, format: 'LCOW' }, context);
}

async function blockCims(): Promise<void> {
  const makeLayer = (files: typeof BASE) => writeLayerBlob('C:\\blobs', layerItems(files));
  const bare = await stack({ makeLayer, format: 'BlockCIM' } as never, BASE, UPPER);
  const requests = bare.map((request) => ({ ...request, vhdFooter: true }));
  const chain = requests.map(({ chainId }) => chainId);
  await build(host, requests);
  await host.mergeChain({ chain, format: 'BlockCIM' }, context);
  await host.prepareSnapshot({ key: 'app', kind: 'active', chain, format: 'BlockCIM' }, context);
  await runVm('windows', 'Windows');
  const more = { utilityVM: 'windows', path: 'C:\\c\\app', access: 'ReadWrite', snapshot: 'app' } as const;
  const request = inVm('block', 'BlockCIM', chain, more);
  await assert.rejects(host.mount(request, context), /VHD footer/);
  await host.mergeChain({ chain, format: 'BlockCIM', vhdFooter: true }, context);
  await rejects(
    host.mount({ ...request, access: 'ReadOnly', snapshot: undefined }, context),
    'invalid-manifest',
  );
  await host.mount(request, context);
  const { volumeGuid } = request;
  assert.deepEqual(await things('windows'), [
    ...[
      `cims ${volumeGuid}`,
      'layers C__c_app',
      'mount C__c_app',
      'scsi 0-60',
      'scsi 0-61',
      'scsi 0-62',
      'scsi 0-63',
    ],
  ]);
  assert.deepEqual((await look(host)).mounts[0]?.hcsStorage, {
    Layers: [{ Id: volumeGuid, Path: `\\\\?\\Volume{${volumeGuid}}\\Files` }],
    Path: 'C:\\c\\app',
  });
  await rejects(host.removeSnapshot('app', context), 'failed-precondition');
  await host.dismount(volumeGuid, context);
  assert.deepEqual(await things('windows'), []);

  // The same chain shown to the host: its volume, and the scratch's over it.
  const onHost: MountRequest = { ...request, path: 'C:\\shown', utilityVM: undefined };
  await host.mount(onHost, context);
  const { Layers, Path } = (await look(host)).mounts[0]?.hcsStorage ?? {};
  const volume = shownVolumeGuid(host.root, volumeGuid);
  assert.deepEqual(Layers, [{ Id: volume, Path: `\\\\?\\Volume{${volume}}\\` }]);
  assert.match(Path ?? '', /^\\\\\?\\Volume\{[0-9a-f-]{36}\}\\$/);
  await host.dismount(volumeGuid, context);
  await host.removeSnapshot('app', context);
}

async function wcifsLayers(): Promise<void> {
  const makeLayer = (files: typeof BASE) => writeLayerBlob('C:\\blobs', layerItems(files));
  const requests = await stack({ makeLayer, format: 'WCIFS' } as never, BASE, UPPER);
  const chain = requests.map(({ chainId }) => chainId);
  await build(host, requests);
  await host.prepareSnapshot({ key: 'old', kind: 'active', chain, format: 'WCIFS' }, context);
  const more = { utilityVM: 'windows', path: 'C:\\c\\old', access: 'ReadWrite', snapshot: 'old' } as const;
  const request = inVm('wcifs', 'WCIFS', chain, more);
  await host.mount(request, context);
  const [layers, mount, disk, ...shares] = await things('windows');
  assert.deepEqual(
    [layers, mount, disk, shares.length],
    ['layers C__c_old', 'mount C__c_old', 'scsi 0-63', 2],
  );
  const { Layers, Path } = (await look(host)).mounts[0]?.hcsStorage ?? {};
  assert.deepEqual([Layers?.length, Path], [2, 'C:\\c\\old']);
  for (const { Path: path } of Layers ?? []) assert.match(path, /^\\\\\?\\VMSMB\\VSMB-\{.+\}\\cimlet-/);
  await host.dismount(request.volumeGuid, context);
  assert.deepEqual(await things('windows'), []);

  // The same on the host: topmost first, by the folders that Windows knows.
  await host.mount({ ...request, path: 'C:\\shown', utilityVM: undefined }, context);
  const told = (await look(host)).mounts[0]?.hcsStorage?.Layers ?? [];
  assert.deepEqual(
    told.map(({ Path: path }) => path.split('\\')[3]),
    chain.map((chainId) => `${hexOf(chainId)}.wcifs`).reverse(),
  );
  await host.dismount(request.volumeGuid, context);
  await host.removeSnapshot('old', context);
}

await linuxLayers();
await blockCims();
await wcifsLayers();
console.log('done');
