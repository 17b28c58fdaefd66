/** Snapshots are looked into without taking down what shows them. (That they are looked into is in the conformance suite.) */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { ensureDirectory } from '../../../src/hosts/directories.ts';
import type { ChainId, SnapshotRequest } from '../../../src/hosts/host.ts';
import { mountVolumeGuid } from '../../../src/hosts/identity.ts';
import { layoutOf } from '../../../src/hosts/layout.ts';
import { writeMountRecord } from '../../../src/hosts/mount-records.ts';
import { withSnapshotTrees } from '../../../src/hosts/windows/snapshot-trees.ts';
import type { ViewRecord } from '../../../src/hosts/windows/view-state.ts';
import type { Gallery } from '../../../src/hosts/windows/views.ts';

const VOLUME = '\\\\?\\Volume{11111111-2222-4333-8444-555555555555}\\';

it('leaves a writable mount that something covers as it is', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'cimlet-covered-'));
  try {
    const layout = layoutOf(join(directory, 'root'));
    for (const each of [layout.mounts, layout.snapshots]) await ensureDirectory(each);
    const path = join(directory, 'covered', 'mount');
    const chain = [`sha256:${'a'.repeat(64)}` as ChainId];
    const snapshot: SnapshotRequest = { key: 'written', kind: 'active', chain, format: 'WCIFS' };
    const record: ViewRecord = {
      formatVersion: 1,
      request: {
        ...{ volumeGuid: mountVolumeGuid('covered'), path, chain, format: 'WCIFS', access: 'ReadWrite' },
        ...{ view: 'Kernel', snapshot: snapshot.key },
      },
      created: [],
      scratch: join(directory, 'scratch'),
    };
    await writeMountRecord(layout, record);
    // The mount manager has it there, though nothing is seen; no other call is made.
    const gallery = {
      layout,
      scratches: { volumeOf: async () => VOLUME },
      kernel32: { mountPointsOf: async () => [path] },
    } as unknown as Gallery;
    const looking = withSnapshotTrees(gallery, snapshot, { signal: new AbortController().signal }, async () =>
      expect.unreachable(),
    );
    await expect(looking).rejects.toMatchObject({ code: 'busy', message: expect.stringMatching(/hides it/) });
  } finally {
    await rm(directory, { recursive: true });
  }
});
