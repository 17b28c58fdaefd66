import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it, onTestFinished, vi } from 'vitest';
import { createEmbeddedHost } from '../../../src/hosts/embedded/embedded-host.ts';
import { countWritten } from '../../../src/hosts/embedded/observe-snapshots.ts';
import { withPathLock } from '../../../src/hosts/embedded/path-lock.ts';
import { findScratch } from '../../../src/hosts/embedded/scratch.ts';
import { removeSnapshot } from '../../../src/hosts/embedded/snapshot-store.ts';
import { snapshotGuid } from '../../../src/hosts/identity.ts';
import { layerFolder, layoutOf, snapshotPath } from '../../../src/hosts/layout.ts';
import { readSnapshotRecord } from '../../../src/hosts/snapshot-records.ts';
import { requireOrSkip } from '../../support/requirements.ts';
import { build, context, makeDirectory, makeStack, mountRequest, openBench } from './fixture.ts';

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const canMount = requireOrSkip('kernel EROFS mounts', capabilities['view.Kernel'].available);

it('who waits for a lock hears that nobody wants it any more, and takes it from nobody', async () => {
  const path = join(await makeDirectory(), 'scratch.ext4');
  writeFileSync(path, '');
  const released = Promise.withResolvers<void>();
  const held = Promise.withResolvers<void>();
  const holder = withPathLock(path, 'exclusive', 'hold', () => {
    held.resolve();
    return released.promise;
  });
  await held.promise;
  const stop = new AbortController();
  const waiting = withPathLock(path, 'shared', 'open snapshot "a"', async () => 'never', {
    signal: stop.signal,
  });
  stop.abort();
  await expect(waiting).rejects.toMatchObject({ code: 'cancelled' });
  released.resolve();
  await holder;
  expect(await withPathLock(path, 'shared', 'open', async () => 'free')).toBe('free');
});

it('who has waited long enough hears who has it', async () => {
  const path = join(await makeDirectory(), 'scratch.ext4');
  writeFileSync(path, '');
  const second = () => withPathLock(path, 'exclusive', 'remove', async () => 'never', { patienceMs: 0 });
  await expect(withPathLock(path, 'exclusive', 'hold', second)).rejects.toMatchObject({
    code: 'busy',
    message: expect.stringContaining(`${path} is in use by process ${process.pid}`),
  });
});

it.runIf(canMount)('what shows a chain is waited for as long as another process makes it', async () => {
  const { host, directory, root } = await openBench();
  const requests = await makeStack(join(directory, 'blobs'), [{ name: 'Files/', type: 'directory' }]);
  await build(host, requests);
  const request = mountRequest(join(directory, 'mount'), requests);
  const folder = snapshotPath(layoutOf(root), layerFolder(requests[0]));
  let minutes = 0;
  const clock = vi.spyOn(performance, 'now').mockImplementation(() => 60_000 * minutes++);
  onTestFinished(() => clock.mockRestore());
  let mounting: Promise<unknown> | undefined;
  await withPathLock(folder, 'exclusive', 'hold', async () => {
    const before = minutes;
    mounting = host.mount(request, context);
    await vi.waitFor(() => expect(minutes).toBeGreaterThan(before + 10), { timeout: 20_000 });
  });
  await mounting;
  await host.dismount(request.volumeGuid, context);
});

it('counting what was written ends with its signal', async () => {
  const { host, root } = await openBench();
  const snapshot = { key: 'work', kind: 'active', chain: [], format: 'ForkedCIM' } as const;
  await host.prepareSnapshot(snapshot, context);
  const record = await readSnapshotRecord(layoutOf(root), 'work');
  await expect(countWritten(layoutOf(root), record!, AbortSignal.abort())).rejects.toMatchObject({
    code: 'cancelled',
  });
});

it('removing a snapshot that another process has open ends with its signal, and leaves it', async () => {
  const { host, root } = await openBench();
  const snapshot = { key: 'work', kind: 'active', chain: [], format: 'ForkedCIM' } as const;
  await host.prepareSnapshot(snapshot, context);
  const layout = layoutOf(root);
  const { directory } = await findScratch(layout, (await readSnapshotRecord(layout, 'work'))!);
  const remove = () => removeSnapshot(layout, 'work', AbortSignal.abort());
  const open = withPathLock(join(directory, snapshotGuid('work')), 'shared', 'hold', remove);
  await expect(open).rejects.toMatchObject({ code: 'cancelled' });
  await removeSnapshot(layout, 'work', context.signal);
  expect(await readSnapshotRecord(layout, 'work')).toBeUndefined();
});
