/** Guards of the Windows host against what Windows does in the field, each met in a Windows process. Prints `done` in the end. */

import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { setImmediate as turn } from 'node:timers/promises';
import type { EffectContext, MountRequest, SnapshotRequest } from '../../../src/hosts/host.ts';
import { mountVolumeGuid } from '../../../src/hosts/identity.ts';
import { bearableLayerCalls } from '../../../src/hosts/windows/layer-calls.ts';
import { createWindowsHost } from '../../../src/hosts/windows/windows-host.ts';
import { FileAccess } from '../../../src/native/windows/kernel32.ts';
import { openWindowsApi } from '../../../src/native/windows/windows.ts';
import { BASE, build, context, look, rejects, stack, UPPER } from '../../conformance/host.ts';
import { layerItems, writeLayerBlob } from '../../support/host-layers.ts';

const FAULTS = 'C:\\doubles\\faults.txt';
const plan = (text: string) => writeFile(FAULTS, text);

await mkdir('C:\\blobs');
await mkdir('C:\\Store');
await mkdir('C:\\doubles', { recursive: true });
const host = createWindowsHost({ root: 'C:\\store' });
const makeLayer = (files: typeof BASE) => writeLayerBlob('C:\\blobs', layerItems(files));
const api = openWindowsApi();

/** What can't be deleted is set aside and said, and stands in nobody's way. */
async function undeletable(): Promise<void> {
  const [base] = await stack({ makeLayer, format: 'BlockCIM' } as never, BASE);
  assert(base !== undefined);
  const warnings: string[] = [];
  const held: number[] = [];
  const remove: EffectContext = { ...context, warn: (message) => warnings.push(message) };
  for (const expected of [['rm'], ['rm', 'rm~2']]) {
    await build(host, [base]);
    const folder = (await readdir('C:\\store\\snapshots')).find((name) => !name.startsWith('rm-'));
    const file = `C:\\store\\snapshots\\${folder}\\layer.bcim`;
    held.push(await api.kernel32.createFile(file, { access: FileAccess.read, share: 0, flags: 0 }));
    await host.removeLayer(base, remove);
    const { layers, leftovers } = await look(host);
    const names = leftovers.map(({ path }) => path.replace(/^.*\\(rm)-[0-9a-f]+\.block/, '$1'));
    assert.deepEqual([layers, names], [[], expected]);
  }
  assert.match(warnings.join('\n'), /cannot be deleted yet/);
  for (const handle of held) api.kernel32.closeHandle(handle);
  assert.equal((await host.cleanLeftovers(context)).length, 2);
  assert.deepEqual(await readdir('C:\\store\\snapshots'), []);
}

/** Refusals that something left attached explains are met by detaching it, once; others are thrown. */
async function refusedLayerCalls(): Promise<void> {
  const { vmcompute, computestorage } = bearableLayerCalls(api);
  const layer = 'C:\\layers\\a';
  for (const code of ['80070005', '80070020', 'c0000022', 'd0000043']) {
    await mkdir(layer, { recursive: true });
    await plan(`DestroyLayer 1 fail ${code}\n`);
    await vmcompute.destroyLayer(layer);
    assert.deepEqual(await readdir('C:\\layers'), []);
    await mkdir(layer);
    await plan(`DestroyLayer 1 fail ${code}\nDestroyLayer 2 fail ${code}\n`);
    await rejects(
      vmcompute.destroyLayer(layer),
      code.endsWith('2') || code.endsWith('5') ? 'access-denied' : 'busy',
    );
    await plan('DestroyLayer 1 fail 80070003\n');
    await rejects(vmcompute.destroyLayer(layer), 'not-found');
    await vmcompute.destroyLayer(layer);
  }
  await plan('HcsAttachOverlayFilter 0 fail 80070020\n');
  const data = { SchemaVersion: { Major: 2, Minor: 1 }, FilterType: 'UnionFS' as const, Layers: [] };
  await rejects(computestorage.attachOverlayFilter('\\\\?\\Volume{0}\\', data), 'busy');
  await plan('');
}

/** A call that never returns keeps nobody waiting who gives up, nor the event loop; what it works on stays locked. */
async function hung(): Promise<void> {
  const impatient = createWindowsHost({ root: 'C:\\store', patience: 0 });
  const requests = await stack({ makeLayer } as never, BASE, UPPER);
  await build(impatient, requests);
  const volumeGuid = mountVolumeGuid('hung');
  const chain = requests.map(({ chainId }) => chainId);
  const path = 'C:\\hung\\here';
  const request: MountRequest = {
    volumeGuid,
    path,
    chain,
    format: 'ForkedCIM',
    access: 'ReadOnly',
    view: 'Kernel',
  };
  await plan('CimMountImage 1 hang 0\n');
  const stop = new AbortController();
  const mounting = impatient.mount(request, { signal: stop.signal });
  while ((await readFile(FAULTS, 'utf8')) !== '') await turn();
  stop.abort();
  await rejects(mounting, 'cancelled', /mount C:\\hung\\here: .* Windows has not answered/);
  assert.equal((await look(impatient)).mounts[0]?.state, 'missing');
  const other = new AbortController();
  const waiting = impatient.dismount(volumeGuid, { signal: other.signal });
  other.abort();
  await rejects(waiting, 'cancelled');
  await writeFile('C:\\doubles\\release', '');
  await impatient.mount(request, context);
  await impatient.dismount(volumeGuid, context);
}

/** Whoever waits for a call that doesn't return is told of it, more than once, and gets its result in the end. */
async function told(): Promise<void> {
  const watchful = createWindowsHost({ root: 'C:\\store', slow: 1 });
  const requests = await stack({ makeLayer } as never, BASE);
  await build(host, requests);
  const chain = requests.map(({ chainId }) => chainId);
  const request: SnapshotRequest = { key: 'told', kind: 'active', chain, format: 'ForkedCIM' };
  // What `hung` left would let this one go on at once.
  await rm('C:\\doubles\\release');
  await plan('CreateVirtualDisk 1 hang 0\n');
  const warnings: string[] = [];
  const { promise: warnedTwice, resolve } = Promise.withResolvers<void>();
  const warn = (message: string) => {
    if (message.includes('CreateVirtualDisk') && warnings.push(message) === 2) resolve();
  };
  const preparing = watchful.prepareSnapshot(request, { ...context, warn });
  await warnedTwice;
  await writeFile('C:\\doubles\\release', '');
  await preparing;
  assert.match(
    warnings[0] ?? '',
    /^prepare snapshot "told": CreateVirtualDisk of virtdisk.dll has not returned .* \(create disk C:\\Store\\/,
  );
  assert.equal((await look(watchful)).snapshots.length, 1);
  await watchful.removeSnapshot('told', context);
}

/** One refusal doesn't keep all the rest from being seen. */
async function unseen(): Promise<void> {
  const requests = await stack({ makeLayer } as never, BASE);
  await build(host, requests);
  const key = 'unseen';
  const chain = requests.map(({ chainId }) => chainId);
  await host.prepareSnapshot({ key, kind: 'active', chain, format: 'ForkedCIM' }, context);
  const volumeGuid = mountVolumeGuid(key);
  const path = 'C:\\unseen';
  const request: MountRequest = {
    ...{ volumeGuid, path, chain, format: 'ForkedCIM', view: 'Kernel' },
    ...{ access: 'ReadWrite', snapshot: key },
  };
  await host.mount(request, context);
  await plan('GetLayerMountPath 1 fail 80004005\n');
  const { mounts, layers } = await look(host);
  assert.equal(layers.length > 0, true);
  assert.match(mounts[0]?.message ?? '', /GetLayerMountPath/);
  await plan('GetLayerMountPath 1 fail 80004005\n');
  await rejects(host.removeLayer(requests[0] as never, context), 'native');
  assert.equal((await look(host)).mounts[0]?.state, 'mounted');
  await host.dismount(volumeGuid, context);
  await host.removeSnapshot(key, context);
}

/** Paths that Windows takes for one are one, and what it would take for another isn't taken. */
async function spellings(): Promise<void> {
  const roots = ['C:\\Store', 'C:\\Store\\', 'c:\\store', 'C:/store/.', '\\\\?\\C:\\STORE', 'C:Store'];
  process.chdir('C:\\');
  assert.deepEqual([...new Set(roots.map((root) => createWindowsHost({ root }).root))], ['C:\\Store']);
  const requests = await stack({ makeLayer } as never, BASE);
  await build(host, requests);
  for (const path of [
    'C:\\x\\',
    '\\\\?\\C:\\x',
    'C:x',
    '\\x',
    'C:\\y\\..\\x',
    'C:\\x.',
    'C:\\x \\y',
    'C:\\x:y',
    `C:\\${'x'.repeat(200)}\\${'y'.repeat(60)}`,
  ]) {
    const request = {
      volumeGuid: mountVolumeGuid(path),
      path,
      chain: requests.map(({ chainId }) => chainId),
    };
    const rest = { format: 'ForkedCIM', access: 'ReadOnly', view: 'Kernel' } as const;
    await rejects(host.mount({ ...request, ...rest }, context), 'invalid-manifest');
  }
}

await undeletable();
await spellings();
await refusedLayerCalls();
await unseen();
await hung();
await told();
console.log('done');
