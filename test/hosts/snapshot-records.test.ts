import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { ensureDirectory } from '../../src/hosts/directories.ts';
import type { ChainId, SnapshotRequest } from '../../src/hosts/host.ts';
import { snapshotGuid } from '../../src/hosts/identity.ts';
import { type Layout, layoutOf, snapshotPath } from '../../src/hosts/layout.ts';
import {
  parseSnapshotFolder,
  readSnapshotRecord,
  readSnapshotRecords,
  writeSnapshotRecord,
} from '../../src/hosts/snapshot-records.ts';

let layout: Layout;
beforeEach(async () => {
  layout = layoutOf(await mkdtemp(join(tmpdir(), 'cimlet-snapshots-')));
});
afterEach(() => rm(layout.root, { recursive: true }));

const request = (key: string): SnapshotRequest => ({
  key,
  kind: 'active',
  chain: [`sha256:${'a'.repeat(64)}` as ChainId],
  format: 'BlockCIM',
});

async function keep(key: string, prefix: '' | 'tmp-' | 'rm-' = ''): Promise<void> {
  const path = snapshotPath(layout, snapshotGuid(key), prefix);
  await ensureDirectory(path);
  await writeSnapshotRecord(path, request(key));
}

it('keeps snapshots by any key, in folders that no key leads out of', async () => {
  const keys = ['default/1/extract-1 sha256:x', '../../outside', 'C:\\x', ' ', 'A', 'a', 'ü'];
  for (const key of keys) await keep(key);
  expect((await readSnapshotRecords(layout)).map((record) => record.request.key)).toEqual(keys.sort());
  for (const key of keys) {
    expect((await readSnapshotRecord(layout, key))?.request).toEqual(request(key));
    expect(parseSnapshotFolder(snapshotGuid(key))).toEqual({ prefix: '', folder: snapshotGuid(key) });
  }
});

it('knows none that is not finished, or is being removed', async () => {
  await keep('half', 'tmp-');
  await keep('gone', 'rm-');
  expect(await readSnapshotRecords(layout)).toEqual([]);
  expect(await readSnapshotRecord(layout, 'half')).toBeUndefined();
});
