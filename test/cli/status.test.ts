import { describe, expect, test } from 'vitest';
import { describeResource } from '../../src/cli/describe.ts';
import { parseWanted, selectItems } from '../../src/cli/find-status.ts';
import { itemTable } from '../../src/cli/render-items.ts';
import { createPaint } from '../../src/cli/text.ts';
import { capabilityTable } from '../../src/hosts/capability.ts';
import type {
  ChainId,
  DiffId,
  Digest,
  HostState,
  ObservedLayer,
  ObservedMount,
} from '../../src/hosts/host.ts';
import { mountVolumeGuid } from '../../src/hosts/identity.ts';
import { mergeStatus } from '../../src/reconciler/status.ts';
import { type Item, itemsOf } from '../../src/server/items.ts';
import type { NamedSnapshot } from '../../src/state/named-snapshots.ts';
import type { ResourceRecord, SnapshotRecord, StateRecords } from '../../src/state/records.ts';
import { chainIds } from './plans.ts';

const since = '2026-01-01T00:00:00.000Z';
const now = Date.parse('2026-01-01T03:00:00.000Z');
const layout = { width: 200, paint: createPaint(false), wide: false, qualified: false, now };
const [base, top] = chainIds as [(typeof chainIds)[0], (typeof chainIds)[0], ...typeof chainIds];
const guid = mountVolumeGuid('app');

function record(kind: ResourceRecord['kind'], facts: ResourceRecord['facts'], ready = true): ResourceRecord {
  return {
    kind,
    name: 'app',
    sourceId: 's',
    spec: {},
    specDigest: 'd',
    dependencies: [],
    revision: 'r',
    prune: true,
    deletionPolicy: 'Delete',
    generation: 1,
    appliedDigest: 'd',
    appliedRevision: 'r',
    facts,
    conditions: [
      {
        type: 'Ready',
        status: ready ? 'True' : 'False',
        reason: ready ? 'Created' : 'DependencyFailed',
        message: ready ? 'mounted' : 'LayerChain/app failed',
        lastTransitionTime: since,
        observedGeneration: 1,
      },
    ],
    history: [],
    createdAt: since,
    updatedAt: since,
  };
}

const chain = { format: 'ForkedCIM' as const, chainIds: [base, top] };
const mountFacts = {
  volumeGuid: guid,
  path: '/mnt/app',
  view: 'Kernel' as const,
  access: 'ReadOnly' as const,
  since,
};

function layer(chainId: typeof base, faults: ObservedLayer['faults'] = []): ObservedLayer {
  const diffId = chainId as string as DiffId;
  return { chainId, format: 'ForkedCIM', diffId, bytes: 4096, files: 3, builder: 'b', faults };
}

function snapshot(chainId: typeof base, state: SnapshotRecord['state'] = 'committed'): SnapshotRecord {
  const diffId = chainId as string as DiffId;
  return { chainId, format: 'ForkedCIM', diffId, state, bytes: 4096, createdAt: since };
}

const mounted: ObservedMount = {
  volumeGuid: guid,
  path: '/mnt/app',
  chainId: top,
  format: 'ForkedCIM',
  view: 'Kernel',
  access: 'ReadOnly',
  state: 'mounted',
};

function hostState(change: Partial<HostState> = {}): HostState {
  return {
    formatVersion: 1,
    host: { kind: 'memory', platform: 'linux', osVersion: '6', architecture: 'x64' },
    root: '/r',
    capabilities: capabilityTable({}, 'no'),
    layers: [layer(base), layer(top)],
    merges: [],
    mounts: [mounted],
    snapshots: [],
    paths: {},
    leftovers: [],
    ...change,
  };
}

const records: StateRecords = {
  resources: [
    record('Image', {
      image: {
        digest: `sha256:${'d1'.repeat(32)}` as Digest,
        platform: { os: 'windows', architecture: 'amd64', osVersion: '10.0.26100.1742' },
        layers: [],
        bytes: 12_897_485,
      },
    }),
    record('LayerChain', { chain }),
    record('Mount', { chain, mount: mountFacts }),
  ],
  snapshots: [snapshot(base), snapshot(top)],
  mounts: [],
  names: [],
};

const statusAt = (what: StateRecords, state: HostState) => itemsOf(mergeStatus(what, state, since));

describe('what was applied, held against the host, in one word', () => {
  test('ready where the host agrees', () => {
    const { resources, snapshots } = statusAt(records, hostState());
    expect(
      resources.map(({ kind, name, status }) => [`${kind}/${name}`, status.ready, status.reason]),
    ).toEqual([
      ['Image/app', 'True', 'Created'],
      ['LayerChain/app', 'True', 'Created'],
      ['Mount/app', 'True', 'Created'],
    ]);
    expect(snapshots.map(({ status }) => status.reason)).toEqual(['Committed', 'Committed']);
  });

  test('drifted where it does not', () => {
    const mount = statusAt(records, hostState({ mounts: [] })).resources.find(
      ({ kind }) => kind === 'Mount',
    )!;
    expect(mount.status).toMatchObject({ ready: 'False', reason: 'Drifted' });
    expect(mount.status.message).toContain('/mnt/app');
  });

  test('drift that a running agent repairs is no stall', () => {
    const observed = hostState({ mounts: [] });
    const { resources } = itemsOf(mergeStatus(records, observed, since, { isFollowed: true }));
    const mount = resources.find(({ kind }) => kind === 'Mount')!;
    expect(mount.status.conditions.map(({ type, status }) => `${type} ${status}`)).toEqual([
      'Ready False',
      'Reconciling True',
    ]);
    expect(mount.status.message).toContain('the agent repairs it');
  });

  test('what never became ready says its own reason', () => {
    const failed = { ...records, resources: [record('Mount', { mount: mountFacts }, false)] };
    expect(statusAt(failed, hostState({ mounts: [] })).resources[0]?.status).toMatchObject({
      ready: 'False',
      reason: 'DependencyFailed',
      message: 'LayerChain/app failed',
    });
  });

  test('snapshots: interrupted, missing, damaged and unrecorded', () => {
    const half = { ...records, snapshots: [snapshot(base), snapshot(top, 'intended')] };
    const damaged = layer(base, [{ code: 'file-size', message: 'region is short' }]);
    const { snapshots } = statusAt(half, hostState({ layers: [damaged, layer(chainIds[2]!)] }));
    expect(snapshots.map(({ status }) => status)).toMatchObject([
      { ready: 'False', reason: 'Damaged', message: 'region is short' },
      { ready: 'False', reason: 'Interrupted', message: '' },
      { ready: 'Unknown', reason: 'Unrecorded', message: '' },
    ]);
  });
});

describe('a layer that somebody committed as a snapshot', () => {
  const named = (chain: ChainId[], more: Partial<NamedSnapshot> = {}): NamedSnapshot => ({
    name: 'tools',
    kind: 'committed',
    format: 'ForkedCIM',
    chain,
    labels: {},
    state: 'ready',
    createdAt: '',
    updatedAt: '',
    ...more,
  });

  test('is committed by that name', () => {
    const names = [named([base, top]), named([base], { name: 'half', state: 'committing' })];
    const layers = [layer(base), layer(top), layer(chainIds[2]!, [])];
    const { snapshots } = statusAt({ ...records, snapshots: [], names }, hostState({ layers }));
    expect(snapshots.map(({ status: { state, name } }) => [state, name])).toEqual([
      ['unrecorded', undefined],
      ['committed', 'tools'],
      ['unrecorded', undefined],
    ]);
  });
});

describe('tables', () => {
  const status = statusAt(records, hostState());
  const of = (kind: 'Image' | 'LayerChain' | 'Mount') =>
    status.resources.filter((each) => each.kind === kind);

  test('images', () =>
    expect(itemTable(of('Image'), 'Image', layout)).toEqual([
      'NAME   READY   STATUS    PLATFORM                        LAYERS   SIZE       AGE',
      'app    True    Created   windows/amd64 10.0.26100.1742   0        12.3 MiB   3h',
    ]));

  test('mounts, named with their kind', () =>
    expect(itemTable(of('Mount'), 'Mount', { ...layout, qualified: true })).toEqual([
      'NAME        READY   STATUS    PATH       VIEW     ACCESS     AGE',
      'Mount/app   True    Created   /mnt/app   Kernel   ReadOnly   3h',
    ]));

  test('snapshots', () =>
    expect(itemTable(status.snapshots, 'Snapshot', layout)[1]).toBe(
      '1a2b3c4d5e6f   True    Committed   ForkedCIM   -        4.0 KiB   3h',
    ));

  test.each(['Image', 'Mount', 'Snapshot'] as const)('%s of usual length fits 80 columns', (section) => {
    const rows = section === 'Snapshot' ? status.snapshots : of(section);
    const longer = rows.map((row) => ({
      ...row,
      name: row.kind === 'Snapshot' ? row.name : 'nanoserver-view',
      status: {
        ...row.status,
        reason: 'Committed',
        ...('mount' in row.status && {
          mount: { ...row.status.mount!, path: '/var/lib/containers/mnt/view' },
        }),
      },
    }));
    const lines = itemTable(longer as Item[], section, { ...layout, width: 80, qualified: true });
    expect(lines).toHaveLength(rows.length + 1);
    expect(lines.filter((line) => line.length > 80)).toEqual([]);
  });

  test('what is suspended is told', () => {
    const suspension = { key: 'Mount/app' as const, by: 'ann', reason: 'maintenance', since };
    const { resources } = itemsOf(mergeStatus(records, hostState(), since, { suspensions: [suspension] }));
    const mount = resources.find(({ kind }) => kind === 'Mount')!;
    expect(itemTable([mount], 'Mount', layout)[1]).toMatch(/^app +True +Suspended /);
    const lines = describeResource(mount, [], [], { width: 100, paint: createPaint(false), now });
    expect(lines).toEqual(expect.arrayContaining(['Suspended by:  ann', 'Because:       maintenance']));
  });

  test('nothing is no table', () => expect(itemTable([], 'Mount', layout)).toEqual([]));
});

test('a description has facts, layers, conditions and events', () => {
  const status = statusAt(records, hostState({ layers: [layer(base)] }));
  const mount = status.resources.find(({ kind }) => kind === 'Mount')!;
  const event = {
    key: 'Mount/app',
    type: 'Warning' as const,
    reason: 'Retrying',
    message: 'busy\u001b[2J',
    count: 3,
    firstTime: since,
    lastTime: since,
  };
  expect(
    describeResource(mount, status.snapshots, [event], { width: 100, paint: createPaint(false), now }).join(
      '\n',
    ),
  ).toBe(`\
Name:          app
Kind:          Mount
Ready:         False (Drifted)
Message:       layer sha256:99887766aabb is gone (apply repairs it)
Generation:    1
Revision:      r
Format:        ForkedCIM
Path:          /mnt/app
Access:        ReadOnly
View:          Kernel
Volume GUID:   ${guid}
Mounted since: ${since}
On the host:   mounted
Layers (base first):
  ${base}  Committed
  ${top}  Missing
Conditions:
  TYPE      STATUS   REASON    AGE   MESSAGE
  Ready     False    Drifted   3h    layer sha256:99887766aabb is gone (apply repairs it)
  Stalled   True     Drifted   3h    layer sha256:99887766aabb is gone (apply repairs it)
Events:
  AGE   TYPE      REASON     COUNT   MESSAGE
  3h    Warning   Retrying   3       busy\\x1b[2J`);
});

test.each([80, 200])(
  'a description of a verified chain has its root hash and footer, %i columns wide',
  (width) => {
    const rootHash = `sha256:${'5e'.repeat(32)}`;
    const block = { ...chain, format: 'BlockCIM' as const, merged: true, rootHash };
    const layers = [layer(base), layer(top)].map((each) => ({ ...each, format: block.format }));
    const snapshots = [base, top].map((each) => ({ ...snapshot(each), format: block.format }));
    const merge = {
      chain: [base, top],
      format: block.format,
      bytes: 8192,
      builder: 'b',
      rootHash,
      faults: [],
    };
    const describeChain = (vhdFooter: true | undefined) => {
      const state = hostState({ layers, merges: [{ ...merge, vhdFooter }] });
      const status = statusAt(
        { ...records, resources: [record('LayerChain', { chain: block })], snapshots },
        state,
      );
      return describeResource(status.resources[0]!, status.snapshots, [], {
        width,
        paint: createPaint(false),
        now,
      });
    };
    const lines = describeChain(true);
    expect(lines.filter((line) => line.length > width)).toEqual([]);
    const begin = lines.indexOf('Merged:        yes');
    expect(lines.slice(begin + 1, lines.indexOf('Conditions:'))).toEqual(
      width === 80
        ? [
            'Root hash:',
            `  ${rootHash}`,
            'VHD footer:    yes',
            'Layers (base first):',
            `  ${base}`,
            '    Committed',
            `  ${top}`,
            '    Committed',
          ]
        : [
            `Root hash:     ${rootHash}`,
            'VHD footer:    yes',
            'Layers (base first):',
            `  ${base}  Committed`,
            `  ${top}  Committed`,
          ],
    );
    expect(describeChain(undefined).join()).not.toContain('VHD');
  },
);

describe('kinds and names', () => {
  test.each([
    ['images', undefined, ['Image'], undefined],
    ['mount/app', undefined, ['Mount'], 'app'],
    ['Chain', 'app', ['LayerChain'], 'app'],
    ['snapshots', 'sha256:1a', ['Snapshot'], 'sha256:1a'],
  ])('%s %s', (word, name, sections, wanted) => {
    expect(parseWanted(word, name)).toEqual({ sections, name: wanted });
  });

  test('an unknown kind', () => expect(() => parseWanted('pods', undefined)).toThrow(/no kind called pods/));

  test('snapshots by the beginning of their chain ID, unknown names as errors', () => {
    const status = statusAt(records, hostState());
    expect(selectItems(status, parseWanted('snapshot/1a2b', undefined)).snapshots).toHaveLength(1);
    expect(() => selectItems(status, parseWanted('mount/x', undefined))).toThrow(/no Mount named x/);
  });
});
