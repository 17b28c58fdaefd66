/** Plans as plain data, for tests of what is printed. */

import type { ChainId, Digest, VolumeGuid } from '../../src/hosts/host.ts';
import type { Plan, PlannedAction } from '../../src/reconciler/types.ts';

const HEX = ['1a2b3c4d5e6f', '99887766aabb', '0f0e0d0c0b0a'].map((start) => start.padEnd(64, '0'));
export const chainIds = HEX.map((hex) => `sha256:${hex}` as ChainId);
const digest = `sha256:${'d1'.repeat(32)}` as Digest;
const blob = { file: '/images/app/blobs/x', offset: 0, size: 6_000_000, digest, mediaType: 'application/x' };

function buildLayer(at: number): PlannedAction['work'] {
  return {
    do: 'buildLayer',
    request: {
      chainId: chainIds[at]!,
      diffId: chainIds[at] as never,
      parents: chainIds.slice(0, at),
      format: 'ForkedCIM',
      blob,
    },
  };
}

const image: PlannedAction = {
  id: 'Image/app',
  kind: 'Image',
  name: 'app',
  verb: 'create',
  drift: false,
  reasons: [{ code: 'new', message: 'new in the manifests' }],
  bytes: 12_897_485,
  detail: `windows/amd64 10.0.26100.1742, 2 layers, ${digest}`,
  dependsOn: [],
  work: { do: 'resolveImage', image: 'app', digest, blobs: [blob, blob] },
};

function snapshot(at: number, change: Partial<PlannedAction> = {}): PlannedAction {
  return {
    id: `Snapshot/ForkedCIM/${chainIds[at]}`,
    kind: 'Snapshot',
    name: chainIds[at]!,
    verb: 'create',
    drift: false,
    reasons: [{ code: 'needed-by', message: 'needed by LayerChain/app' }],
    bytes: 6_448_742 + at,
    detail: at === 0 ? 'ForkedCIM, base layer' : `ForkedCIM, on ${chainIds[at - 1]}`,
    dependsOn: at === 0 ? ['Image/app'] : [`Snapshot/ForkedCIM/${chainIds[at - 1]}`, 'Image/app'],
    work: buildLayer(at),
    ...change,
  };
}

const chain: PlannedAction = {
  id: 'LayerChain/app',
  kind: 'LayerChain',
  name: 'app',
  verb: 'create',
  drift: false,
  reasons: [{ code: 'new', message: 'new in the manifests' }],
  bytes: 0,
  detail: 'ForkedCIM, 2 layers',
  dependsOn: [`Snapshot/ForkedCIM/${chainIds[1]}`],
  work: { do: 'recordChain', chain: 'app', format: 'ForkedCIM', chainIds: chainIds.slice(0, 2) },
};

const mount: PlannedAction = {
  id: 'Mount/app-view',
  kind: 'Mount',
  name: 'app-view',
  verb: 'create',
  drift: false,
  reasons: [{ code: 'new', message: 'new in the manifests' }],
  bytes: 0,
  detail: '/mnt/app, ReadOnly, Kernel view',
  dependsOn: ['LayerChain/app'],
  work: {
    do: 'mountView',
    request: {
      volumeGuid: 'v' as VolumeGuid,
      path: '/mnt/app',
      chain: chainIds.slice(0, 2),
      format: 'ForkedCIM',
      access: 'ReadOnly',
      view: 'Kernel',
    },
  },
};

export function planOf(actions: PlannedAction[], change: Partial<Plan> = {}): Plan {
  const count = (verb: PlannedAction['verb']) => actions.filter((action) => action.verb === verb).length;
  return {
    formatVersion: 1,
    revision: 'manifests@sha256:00',
    mode: 'apply',
    host: { kind: 'memory', root: '/var/lib/cimlet' },
    actions,
    blocked: [],
    notes: [],
    summary: {
      create: count('create'),
      change: count('change'),
      replace: count('replace'),
      repair: count('repair'),
      delete: count('delete'),
      drift: actions.filter(({ drift }) => drift).length,
      blocked: change.blocked?.length ?? 0,
      unchanged: 0,
      bytes: actions.reduce((sum, { bytes }) => sum + bytes, 0),
    },
    ...change,
  };
}

/** A first apply: one image of two layers, its chain and a mount. */
export const firstPlan = planOf([image, snapshot(0), snapshot(1), chain, mount]);

const merge: PlannedAction = {
  id: `Merge/BlockCIM/${chainIds[1]}`,
  kind: 'Merge',
  name: chainIds[1]!,
  verb: 'create',
  drift: false,
  reasons: [{ code: 'needed-by', message: 'needed by LayerChain/app' }],
  bytes: 0,
  detail: 'BlockCIM, 2 layers, sealed',
  dependsOn: [`Snapshot/ForkedCIM/${chainIds[1]}`],
  neededBy: 'LayerChain/app',
  work: { do: 'mergeChain', request: { chain: chainIds.slice(0, 2), format: 'BlockCIM', seal: true } },
};

/** As the first, with a merged CIM. */
export const mergedPlan = planOf([
  image,
  snapshot(0),
  snapshot(1),
  merge,
  { ...chain, dependsOn: [merge.id] },
  mount,
]);

/** Everything a plan can say at once. */
export const messyPlan = planOf(
  [
    snapshot(0, {
      verb: 'repair',
      drift: true,
      reasons: [
        { code: 'file-missing', message: `region_0f3e_1 of ${chainIds[0]} is gone` },
        { code: 'file-size', message: 'region_0f3e_0 is 4096 bytes instead of 8192' },
      ],
      dependsOn: [],
    }),
    {
      ...mount,
      verb: 'repair',
      drift: true,
      reasons: [{ code: 'unmounted', message: 'was unmounted by somebody else' }],
      dependsOn: [],
    },
    {
      ...mount,
      id: 'Mount/tools',
      name: 'tools',
      verb: 'replace',
      detail: '/srv/a/path/that/is/long/enough/to/need/a/line/of/its/own/on/a/narrow/terminal/tools',
      reasons: [
        { code: 'path-changed', message: 'path changes from /srv/tools' },
        { code: 'layers-changed', message: `top layer changes to ${chainIds[2]}` },
      ],
      dependsOn: [],
    },
    { ...chain, verb: 'change', reasons: [{ code: 'spec-changed', message: 'spec changed' }], dependsOn: [] },
    snapshot(2, {
      verb: 'delete',
      bytes: 3_000_000,
      reasons: [{ code: 'unreferenced', message: 'nothing needs it any more' }],
      dependsOn: ['Mount/tools'],
      work: { do: 'removeLayer', ref: { chainId: chainIds[2]!, format: 'ForkedCIM' } },
    }),
  ],
  {
    blocked: [
      {
        key: 'Mount/data',
        code: 'already-exists',
        message: 'mount point /srv/data is a directory that is not empty',
        hint: 'empty it, or choose another path',
        position: { file: 'manifests/data.yaml', line: 12, column: 3 },
      },
      { key: 'Mount/evil\u001b[2J' as never, code: 'dependency', message: 'LayerChain/x is blocked' },
    ],
    notes: [
      { key: 'Mount/app-view', message: 'view: Kernel chosen, since spec.view is not given' },
      {
        message:
          'free space is low: the root has 1.0 GiB left, and this plan writes about 500.0 MiB of layers',
      },
    ],
  },
);
