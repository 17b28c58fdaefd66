/** What becomes of snapshots by key when a call of Windows fails, or is the last of a process. Prints as JSON what was met. */

import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import type { Host, LayerFormat, MountRequest, SnapshotRequest } from '../../../src/hosts/host.ts';
import { mountVolumeGuid } from '../../../src/hosts/identity.ts';
import { createWindowsHost } from '../../../src/hosts/windows/windows-host.ts';
import { endProcess } from '../../../src/native/windows/system.ts';
import { build, context, type LayerFiles, look, stack } from '../../conformance/host.ts';
import { layerItems, writeLayerBlob } from '../../support/host-layers.ts';
import { type Effect, type Met, meetEachCall } from './each-call.ts';

// Threads of calls that didn't return would be waited for.
process.on('uncaughtException', (error) => process.stderr.write(`${error.stack}`, () => endProcess(1)));

const open = () => createWindowsHost({ root: 'C:\\store' });
const makeLayer = (files: LayerFiles) => writeLayerBlob('C:\\blobs', layerItems(files));

async function effectsOf(format: LayerFormat): Promise<Effect[]> {
  const requests = await stack({ makeLayer, format } as never, { 'a.txt': 'a' }, { 'b.txt': 'b' });
  await build(open(), requests);
  const chain = requests.map(({ chainId }) => chainId);
  const snapshot: SnapshotRequest = {
    key: 'work',
    kind: 'active',
    chain,
    format,
    scratch: { bytes: 30 * 2 ** 30 },
  };
  const volumeGuid = mountVolumeGuid(format);
  const path = 'C:\\written';
  const request: MountRequest = {
    volumeGuid,
    path,
    chain,
    format,
    access: 'ReadWrite',
    view: 'Kernel',
    snapshot: 'work',
  };
  const none = async (host: Host) => {
    await host.dismount(volumeGuid, context);
    await host.removeSnapshot('work', context);
    await rm('C:\\store\\scratches', { recursive: true, force: true });
  };
  const prepared = async (host: Host) => {
    await host.dismount(volumeGuid, context);
    await host.prepareSnapshot(snapshot, context);
  };
  const mounted = async (host: Host) => {
    await host.prepareSnapshot(snapshot, context);
    await host.mount(request, context);
  };
  const written = async (host: Host) => {
    await mounted(host);
    await writeFile(`${path}\\c.txt`, 'c');
    await host.dismount(volumeGuid, context);
  };
  const tar = 'C:\\exported.tar';
  return [
    {
      name: `prepare ${format}`,
      prepare: none,
      run: (host) => host.prepareSnapshot(snapshot, context),
      onlyFailing: /VirtualDisk$|^DeviceIoControl$|^HcsFormat/,
      // Windows detaches such a disk with its handle; the double doesn't. Without the grant only VMs don't work.
      only: /^(?!(DetachVirtualDisk|HcsGrantVmGroupAccess)$)/,
    },
    { name: `mount ${format}`, prepare: prepared, run: mounted },
    {
      name: `dismount ${format}`,
      prepare: mounted,
      run: (host) => host.dismount(volumeGuid, context),
      isUndoing: true,
    },
    { name: `export ${format}`, prepare: written, run: (host) => host.exportSnapshot('work', tar, context) },
  ];
}

await mkdir('C:\\blobs', { recursive: true });
await mkdir('C:\\doubles', { recursive: true });
const met: Met[] = [];
for (const effect of await effectsOf('ForkedCIM')) met.push(...(await meetEachCall(open, effect)));
const host = open();
await host.removeSnapshot('work', context);
const { snapshots, mounts, leftovers } = await look(host);
const folders = (await readdir('C:\\store\\snapshots')).filter((name) => /^[^.]{36}$/.test(name));
process.stdout.write(JSON.stringify({ met, left: [snapshots, mounts, leftovers, folders] }), () =>
  endProcess(0),
);
endProcess(0);
