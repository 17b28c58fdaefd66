import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createEmbeddedHost } from '../../src/hosts/embedded/embedded-host.ts';
import { scratchAskedFor } from '../../src/snapshots/containerd-labels.ts';
import { Snapshotter } from '../../src/snapshots/snapshotter.ts';
import { openState } from '../../src/state/state.ts';
import { requireOrSkip } from '../support/requirements.ts';

const { active } = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const PREFIX = 'containerd.io/snapshot/';
const ask = (labels: Record<string, string>, names: string[] = [], options = {}) =>
  scratchAskedFor(
    options,
    Object.fromEntries(Object.entries(labels).map(([name, value]) => [PREFIX + name, value])),
    names,
    'prepare',
  );

// As containerd's plugins/snapshots/windows and plugins/snapshots/lcow read them.
describe("labels of containerd's Windows snapshotters", () => {
  it.each([
    [{}, undefined],
    [{ 'windows/rootfs.sizebytes': '21474836480' }, { bytes: 20 * 2 ** 30 }],
    [{ 'io.microsoft.container.storage.rootfs.size-gb': '30' }, { bytes: 30 * 2 ** 30 }],
    [
      { 'io.microsoft.container.storage.rootfs.size-gb': '30', 'windows/rootfs.sizebytes': '5' },
      { bytes: 5 },
    ],
    [{ 'windows/rootfs.sizebytes': '0' }, undefined],
    [{ 'io.microsoft.container.storage.rootfs.location': 'D:\\fast' }, { location: 'D:\\fast' }],
    [{ 'io.microsoft.vm.storage.scratch': '' }, { utilityVM: true }],
  ])('%j', (labels, scratch) => {
    expect(ask(labels as unknown as Record<string, string>)).toEqual(scratch);
  });

  it('share the scratch of the one snapshot whose name has the owner in it', () => {
    const labels = {
      'io.microsoft.container.storage.reuse-scratch': 'true',
      'io.microsoft.owner.key': 'pod-1',
    };
    expect(ask(labels, ['k8s.io/7/pod-1', 'k8s.io/8/pod-2'])).toEqual({ shareWith: 'k8s.io/7/pod-1' });
    expect(ask(labels, ['pod-1', 'k8s.io/7/pod-1'])).toEqual({ shareWith: 'pod-1' });
    expect(() => ask(labels, [])).toThrow(expect.objectContaining({ code: 'not-found' }));
    expect(() => ask(labels, ['a/pod-1', 'b/pod-1'])).toThrow(
      expect.objectContaining({ code: 'failed-precondition' }),
    );
    expect(ask({ ...labels, 'io.microsoft.container.storage.reuse-scratch': 'false' })).toBeUndefined();
  });

  it('say nothing against what is asked for otherwise', () => {
    const labels = { 'windows/rootfs.sizebytes': '5', 'io.microsoft.vm.storage.scratch': '1' };
    expect(ask(labels, [], { bytes: 7, location: undefined })).toEqual({ bytes: 7, utilityVM: true });
  });

  it.each(['-1', '1.5', '20GB', '', '99999999999999999999'])('refuse %j as a size', (text) => {
    expect(() => ask({ 'windows/rootfs.sizebytes': text })).toThrow(
      expect.objectContaining({
        code: 'invalid-manifest',
        message: expect.stringContaining('rootfs.sizebytes'),
      }),
    );
  });

  it.runIf(requireOrSkip('overlayfs over kernel views', active.available)).each([
    ['windows/rootfs.sizebytes', '4096', 'invalid-manifest'],
    ['io.microsoft.vm.storage.scratch', '', 'unsupported-host'],
  ])('are named where the host refuses what they ask for: %s', async (label, value, code) => {
    const root = mkdtempSync(join(tmpdir(), 'cimlet-labels-'));
    const state = openState(root, { readOnly: false });
    try {
      const snapshotter = new Snapshotter(createEmbeddedHost({ root }), state);
      const context = { signal: new AbortController().signal };
      const labels = { [PREFIX + label]: value, other: 'x' };
      await expect(snapshotter.prepare('work', undefined, { labels }, context)).rejects.toMatchObject({
        code,
        hint: expect.stringMatching(new RegExp(`.; the scratch is asked for by label ${PREFIX}${label}$`)),
      });
      await expect(
        snapshotter.prepare('work', undefined, { scratch: { bytes: 4096 } }, context),
      ).rejects.toMatchObject({ hint: expect.not.stringContaining('label') });
    } finally {
      state.close();
      rmSync(root, { recursive: true });
    }
  });
});
