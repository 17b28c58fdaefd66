import { describe, it } from 'vitest';
import { createEmbeddedHost } from '../../src/hosts/embedded/embedded-host.ts';
import type { Capabilities, Host, LayerFormat } from '../../src/hosts/host.ts';
import { BLOCK_CAPABILITIES, MemoryHost, SNAPSHOT_CAPABILITIES } from '../../src/hosts/memory/memory-host.ts';
import { unmountBelow } from '../support/mounts.ts';
import { requireOrSkip } from '../support/requirements.ts';
import { type Holds, snapshotterCases } from './snapshotter.ts';
import { withSnapshotter } from './snapshotter-fixture.ts';

/** What layers of a format can hold on the embedded host. */
const HOLDS: Partial<Record<LayerFormat, readonly Holds[]>> = {
  ForkedCIM: ['files', 'posix', 'many'],
  BlockCIM: ['files', 'posix', 'many'],
  LCOW: ['files', 'posix', 'many', 'owners', 'modes'],
};

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
requireOrSkip('overlayfs over kernel views', capabilities.active.available);

for (const [format, holds] of Object.entries(HOLDS) as [LayerFormat, readonly Holds[]][])
  suite(`the embedded host with ${format}`, format, holds, capabilities, (root) =>
    createEmbeddedHost({ root }),
  );
suite('the in-memory host', 'ForkedCIM', [], undefined, () => {
  return new MemoryHost({ capabilities: { ...BLOCK_CAPABILITIES, ...SNAPSHOT_CAPABILITIES } });
});

function suite(
  name: string,
  format: LayerFormat,
  holds: readonly Holds[],
  available: Capabilities | undefined,
  open: (root: string) => Host,
): void {
  const can =
    available === undefined || (available.active.available && available[`${format}.mount`].available);
  describe(`snapshots with names on ${name} keep containerd's contract`, () => {
    for (const { name: title, needs, run } of snapshotterCases) {
      const missing = needs.filter((need) => !holds.includes(need));
      const suffix = missing.length === 0 ? '' : ` [no ${missing.join(', ')}]`;
      it.skipIf(!can || missing.length > 0)(title + suffix, () =>
        withSnapshotter(format, open, run, unmountBelow),
      );
    }
  });
}
