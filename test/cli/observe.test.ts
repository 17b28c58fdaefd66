import { expect, test } from 'vitest';
import { renderHostState } from '../../src/cli/observe.ts';
import type { ChainId, HostState, VolumeGuid } from '../../src/hosts/host.ts';
import { MemoryHost } from '../../src/hosts/memory/memory-host.ts';
import { checkDocument } from '../../src/manifests/validate.ts';

const volumeGuid = '6d3e1f5c-0a4b-5c6d-8e7f-0123456789ab' as VolumeGuid;

/** As a Windows host sees it. */
async function observed(): Promise<HostState> {
  const state = await new MemoryHost().observe({ signal: new AbortController().signal });
  const layer = { chainId: `sha256:${'a'.repeat(64)}` as ChainId, format: 'BlockCIM' as const };
  return {
    ...state,
    mounts: [
      {
        volumeGuid,
        path: 'C:\\c\\x',
        ...layer,
        view: 'Kernel',
        access: 'ReadWrite',
        utilityVM: 'vm',
        state: 'mounted',
        hcsStorage: {
          Layers: [{ Id: volumeGuid, Path: `\\\\?\\Volume{${volumeGuid}}\\Files` }],
          Path: 'C:\\c\\x',
        },
      },
    ],
    computeSystems: {
      running: [
        {
          id: 'web',
          type: 'Container',
          owner: 'docker',
          state: 'Running',
          guestOs: 'Windows',
          uses: { layers: [layer, layer], mounts: [volumeGuid], snapshots: ['web'] },
        },
        { id: 'vm', type: 'VirtualMachine', uses: { layers: [], mounts: [], snapshots: [] } },
      ],
      unknown: 'access is denied',
    },
    cimVolumes: [
      { path: `\\\\?\\Volume{${volumeGuid}}\\`, ours: 'mount at C:\\x' },
      { path: '\\\\?\\Volume{11111111-2222-4333-8444-555555555555}\\' },
    ],
    cimVolumesUnknown: 'the mount manager is away',
  };
}

test('compute systems and mounted CIMs are part of the host state, and are shown', async () => {
  const state = await observed();
  expect(checkDocument('host-state', state)).toEqual([]);
  expect(checkDocument('host-state', { ...state, cimVolumes: [{ guid: volumeGuid }] })).not.toEqual([]);
  const lines = renderHostState(state, (_style, text) => text);
  expect(lines.filter((line) => /^ {2}(Container|Virtual)|^(Systems|Volume)/.test(line))).toEqual([
    'Systems: 2',
    '  Container web of docker, uses 2 layers and 1 mount and 1 snapshot',
    '  VirtualMachine vm',
    'Systems: unknown: access is denied',
    'Volumes: unknown: the mount manager is away',
    'Volume:  \\\\?\\Volume{6d3e1f5c-0a4b-5c6d-8e7f-0123456789ab}\\: mount at C:\\x',
    'Volume:  \\\\?\\Volume{11111111-2222-4333-8444-555555555555}\\: a CIM of somebody else',
  ]);
});
