/**
 * Views attached to utility VMs, in a Windows process. `all`: what attaching promises. `attach`: one view, for who kills it;
 * `recover`: whoever comes after. Each prints `done` in the end.
 */

import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import type { ChainId, MountRequest } from '../../../src/hosts/host.ts';
import { mountVolumeGuid } from '../../../src/hosts/identity.ts';
import { KeyedLock } from '../../../src/hosts/keyed-lock.ts';
import { layoutOf } from '../../../src/hosts/layout.ts';
import { type MountRecord, readMountRecord, removeMountRecord } from '../../../src/hosts/mount-records.ts';
import { type AttachedRecord, VmAttachments } from '../../../src/hosts/windows/vm-attachments.ts';
import type { VmLayers } from '../../../src/hosts/windows/vm-plan.ts';
import { openWindowsApi } from '../../../src/native/windows/windows.ts';
import { rejects } from '../../conformance/host.ts';

const SYSTEMS = 'C:\\doubles\\systems';
const layout = layoutOf('C:\\store');
const vms = new VmAttachments(openWindowsApi(), layout, new KeyedLock());
const plan = (text: string) => writeFile('C:\\doubles\\faults.txt', text);

async function runVm(id: string, guestOs: string, { runtimeId = `run of ${id}`, reached = true } = {}) {
  const basic = {
    Id: id,
    SystemType: 'VirtualMachine',
    Owner: 'shim',
    RuntimeOsType: guestOs,
    RuntimeId: runtimeId,
  };
  await mkdir(SYSTEMS, { recursive: true });
  await writeFile(`${SYSTEMS}\\${id}.json`, JSON.stringify(basic));
  if (reached)
    await writeFile(`${SYSTEMS}\\${id}.guest.json`, '{"GuestConnectionInfo":{"ProtocolVersion":4}}');
}

/** What a VM has, by the double. */
async function things(id: string): Promise<string[]> {
  const names = await readdir(`${SYSTEMS}\\${id}.devices`).catch(() => []);
  return names.sort();
}

async function holds(id: string, thing: string): Promise<string> {
  return readFile(`${SYSTEMS}\\${id}.devices\\${thing}`, 'utf16le');
}

function recordOf(name: string, request: Partial<MountRequest>): MountRecord {
  const volumeGuid = mountVolumeGuid(name);
  const chain = [`sha256:${'a'.repeat(64)}` as ChainId];
  const base = {
    volumeGuid,
    path: `C:\\c\\${name}`,
    chain,
    format: 'BlockCIM',
    access: 'ReadWrite',
    view: 'Kernel',
  } as const;
  return { formatVersion: 1, request: { ...base, utilityVM: 'vm', ...request }, created: [] };
}

async function attach(record: MountRecord, layers: VmLayers, disk: string | undefined): Promise<void> {
  const scratch = disk === undefined ? undefined : { disk, place: mountVolumeGuid('place') };
  const { volumeGuid, path, utilityVM = '', format } = record.request;
  const vm = await vms.require(utilityVM, format, 'attach');
  await vms.attach(record, vm, { volumeGuid, path, layers, scratch }, 'attach');
}

async function known(record: MountRecord): Promise<AttachedRecord> {
  const found = await readMountRecord<AttachedRecord>(layout, record.request.volumeGuid);
  if (found === undefined) throw new Error('no record');
  return found;
}

async function detach(record: MountRecord): Promise<void> {
  await vms.detach(await known(record));
  await removeMountRecord(layout, record.request.volumeGuid);
}

async function makeFiles(...names: string[]): Promise<string[]> {
  await mkdir('C:\\files', { recursive: true });
  const files = names.map((name) => `C:\\files\\${name}`);
  for (const file of files) await writeFile(file, '');
  return files;
}

const [merged = '', top = '', base = '', one = '', two = ''] = await makeFiles(
  ...['merged.bcim', 'top.bcim', 'base.bcim', 'one.vhdx', 'two.vhdx'],
);
const cims: VmLayers = {
  kind: 'cims',
  cims: [merged, top, base].map((container) => ({ container, name: 'layer.cim' })),
};
const app = recordOf('app', {});
const APP = [
  `cims ${app.request.volumeGuid}`,
  'layers C__c_app',
  'mount C__c_app',
  'scsi 0-60',
  'scsi 0-61',
  'scsi 0-62',
  'scsi 0-63',
];

async function promises(): Promise<void> {
  await runVm('vm', 'Windows');

  // Block CIMs as disks, the scratch where the view is to be, the layers under it; all of it goes in reverse.
  await attach(app, cims, one);
  assert.deepEqual(await things('vm'), APP);
  assert.deepEqual([await holds('vm', 'scsi 0-63'), await holds('vm', 'scsi 0-60')], [merged, one]);
  assert.deepEqual(await vms.state(await known(app)), { state: 'mounted' });

  // A second view on the same layers shares their disks; they stay until the last one goes.
  const other = recordOf('other', {});
  await attach(other, cims, two);
  assert.deepEqual(
    (await things('vm')).filter((name) => name.startsWith('scsi')),
    [...['scsi 0-59', 'scsi 0-60', 'scsi 0-61', 'scsi 0-62', 'scsi 0-63']],
  );
  await detach(app);
  assert.deepEqual(
    (await things('vm')).filter((name) => name.startsWith('scsi')),
    [...['scsi 0-59', 'scsi 0-61', 'scsi 0-62', 'scsi 0-63']],
  );
  await detach(other);
  assert.deepEqual(await things('vm'), []);

  // Places that somebody else has are passed over, and left alone.
  await mkdir(`${SYSTEMS}\\vm.devices`, { recursive: true });
  for (const lun of [63, 61]) await writeFile(`${SYSTEMS}\\vm.devices\\scsi 0-${lun}`, 'theirs', 'utf16le');
  await attach(app, cims, one);
  assert.deepEqual(await holds('vm', 'scsi 0-63'), 'theirs');
  assert.deepEqual(await holds('vm', 'scsi 0-62'), merged);
  await detach(app);
  assert.deepEqual(await things('vm'), ['scsi 0-61', 'scsi 0-63']);
  await rm(`${SYSTEMS}\\vm.devices`, { recursive: true });

  // Folders of WCIFS layers, shared with another view too.
  await mkdir('C:\\files\\layer\\Files', { recursive: true });
  const folders: VmLayers = {
    kind: 'folders',
    folders: [{ id: mountVolumeGuid('x'), path: 'C:\\files\\layer' }],
  };
  await attach(app, folders, one);
  assert.deepEqual(
    (await things('vm')).map((name) => name.replace(/[0-9a-f]{16}/, '…')),
    ['layers C__c_app', 'mount C__c_app', 'scsi 0-63', 'share cimlet-…'],
  );
  await detach(app);
  assert.deepEqual(await things('vm'), []);

  // Linux layers as memory while the VM has any (the double's have two devices), then as disks.
  await runVm('linux', 'Linux');
  const disks: VmLayers = { kind: 'disks', files: await makeFiles('3.vhd', '2.vhd', '1.vhd') };
  const lcow = recordOf('lcow', { utilityVM: 'linux', format: 'LCOW', path: '/run/gcs/c/app/rootfs' });
  await attach(lcow, disks, undefined);
  assert.deepEqual(await things('linux'), [
    'layers _run_gcs_c_app_rootfs',
    'mount _run_mounts_cimlet_0-63',
    'pmem 0',
    'pmem 1',
    'scsi 0-63',
  ]);
  assert.equal(await holds('linux', 'pmem 0'), 'C:\\files\\3.vhd');
  await detach(lcow);
  await attach(lcow, disks, one);
  assert.match(await holds('linux', 'layers _run_gcs_c_app_rootfs'), /^\/run\/mounts\/cimlet\/.+\/scratch\//);
  await detach(lcow);
  assert.deepEqual(await things('linux'), []);

  // Each change failing once: nothing is left in the VM, and the next try works.
  for (let nth = 1; nth <= 7; nth++) {
    await plan(`HcsModifyComputeSystem ${nth} fail 80004005\n`);
    await rejects(attach(app, cims, one), 'native');
    assert.deepEqual([nth, await things('vm')], [nth, []]);
  }
  // A service that falls silent may have done it.
  for (const nth of [1, 5]) {
    await plan(`HcsModifyComputeSystem ${nth} fail-after 8037011e\n`);
    await rejects(attach(app, cims, one), 'unavailable');
    assert.deepEqual([nth, await things('vm')], [nth, []]);
  }
  await plan('GrantVmAccess 3 fail 80070005\n');
  await rejects(attach(app, cims, one), 'access-denied');
  assert.deepEqual(await things('vm'), []);

  // Where taking back fails too, the record knows what is left, and the next one takes it away.
  await plan('HcsModifyComputeSystem 5 fail 80004005\nHcsModifyComputeSystem 7 fail 80004005\n');
  await assert.rejects(attach(app, cims, one), /taking back/);
  assert.notDeepEqual(await things('vm'), []);
  await detach(app);
  assert.deepEqual(await things('vm'), []);

  // VMs that can't have it.
  await rejects(attach(recordOf('x', { utilityVM: 'none' }), cims, one), 'failed-precondition');
  await assert.rejects(attach(recordOf('x', { utilityVM: 'linux' }), cims, one), /runs Linux, not Windows/);
  await runVm('shims', 'Windows', { reached: false });
  await assert.rejects(attach(recordOf('x', { utilityVM: 'shims' }), cims, one), /connection with shim/);
  assert.deepEqual(await things('shims'), []);

  // A VM that was started again has nothing any more; one that is gone neither.
  await attach(app, cims, one);
  await rm(`${SYSTEMS}\\vm.devices`, { recursive: true });
  await runVm('vm', 'Windows', { runtimeId: 'another run' });
  assert.match((await vms.state(await known(app))).message ?? '', /started again/);
  await detach(app);
  await attach(app, cims, one);
  await rm(`${SYSTEMS}\\vm.json`);
  assert.match((await vms.state(await known(app))).message ?? '', /does not run/);
  await detach(app);
  await rm(`${SYSTEMS}\\vm.devices`, { recursive: true });
}

async function attachOnce(): Promise<void> {
  // HCS needn't know what runs in it.
  await runVm('vm', 'Unknown');
  await attach(app, cims, one);
}

async function recover(): Promise<void> {
  const found = await readMountRecord<AttachedRecord>(layout, app.request.volumeGuid);
  if (found !== undefined) await vms.detach(found);
  assert.deepEqual(await things('vm'), []);
  await attachOnce();
  assert.deepEqual(await things('vm'), APP);
  await detach(app);
  assert.deepEqual(await things('vm'), []);
}

await mkdir('C:\\doubles', { recursive: true });
await { all: promises, attach: attachOnce, recover }[process.argv[2] as 'all']();
console.log('done');
