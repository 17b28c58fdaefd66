import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { describe, expect, it } from 'vitest';
import { generateTypes } from '../../scripts/generate-types.ts';
import type { ErrorCode } from '../../src/errors.ts';
import type {
  Capability,
  ChainId,
  DiffId,
  Digest,
  HostState,
  LayerBlob,
  LayerFault,
  LayerFormat,
  LayerRef,
  MergeFault,
  MountAccess,
  ObservedMount,
  PathState,
  ViewKind,
  VolumeGuid,
} from '../../src/hosts/host.ts';
import type { Kind } from '../../src/manifests/resources.ts';
import { checkDocument, checkManifest } from '../../src/manifests/validate.ts';
import type { ActionKind, Plan, ReasonCode, Verb, Work } from '../../src/reconciler/types.ts';

const ROOT = new URL('../../', import.meta.url);
const DIGEST = `sha256:${'0a'.repeat(32)}`;

type Schema = { [key: string]: unknown } & {
  properties?: Record<string, Schema>;
  $defs?: Record<string, Schema>;
  enum?: string[];
};

async function readSchema(name: string): Promise<Schema> {
  return JSON.parse(await readFile(new URL(`schemas/${name}.schema.json`, ROOT), 'utf8')) as Schema;
}

function messages(kind: string, spec: unknown, metadata: unknown = { name: 'app' }): string[] {
  const data = { apiVersion: 'cimlet.dev/v1alpha1', kind, metadata, spec };
  return checkManifest(data).issues.map(({ message, suggestion }) =>
    suggestion === undefined ? message : `${message} (${suggestion}?)`,
  );
}

const layout = { source: { ociLayout: 'x' } };
const layers = { layers: [{ image: 'x' }] };
const mount = { image: 'x', path: '/mnt/x' };

// The program takes that for granted.
describe('the schemas are JSON Schemas of 2020-12', async () => {
  const names = (await readdir(new URL('schemas/', ROOT))).filter((name) => name.endsWith('.schema.json'));
  const ajv = new Ajv2020({ strict: false });
  it.each(names.map((name) => name.replace('.schema.json', '')))('%s', async (name) => {
    expect(ajv.validateSchema(await readSchema(name))).toBe(true);
  });
});

describe('what the schemas accept', () => {
  it.each<[string, object]>([
    ['Image', { source: { registry: 'mcr.microsoft.com/windows/nanoserver:ltsc2025' } }],
    ['Image', layout],
    ['Image', { source: { dockerArchive: '../x.tar' } }],
    ['Image', { ...layout, platform: { os: 'windows', architecture: 'amd64', osVersion: '10.0.26100' } }],
    [
      'Image',
      { ...layout, platform: { osVersion: '10.0.26100.1742', variant: 'v8', osFeatures: ['win32k'] } },
    ],
    ['Image', { ...layout, pullPolicy: 'Always', interval: '1h30m', digest: DIGEST, foreignLayers: 'never' }],
    ['Image', { ...layout, policy: { semver: '>=1.2 <2' } }],
    ['Image', { ...layout, policy: { regex: '^v', order: 'numerical' } }],
    ['Image', { ...layout, verify: { cosign: { keys: ['./cosign.pub'] } } }],
    ['Image', { ...layout, verify: { cosign: { identities: [{ issuer: 'i', subject: 's' }] } } }],
    ['Image', { ...layout, verify: { notation: { trustPolicy: 'p', trustStore: 's' } } }],
    ['LayerChain', layers],
    ['LayerChain', { layers: [{ image: 'a' }, { archive: 'b.tar' }, { archive: 'c.tar', digest: DIGEST }] }],
    ['LayerChain', { ...layers, format: 'BlockCIM', merge: true, integrity: 'Verified', vhdFooter: true }],
    ['Mount', mount],
    ['Mount', { chain: 'x', path: 'C:\\mnt\\x', access: 'ReadOnly', view: 'Extracted' }],
    [
      'Mount',
      {
        ...mount,
        access: 'ReadWrite',
        scratch: { size: '20Gi', unformatted: true, location: 'd', shareWith: 'y', utilityVM: true },
      },
    ],
    ['Mount', { ...mount, access: 'ReadWrite', scratch: { size: 21474836480 } }],
    ['Mount', { ...mount, isolation: { process: {} } }],
    ['Mount', { ...mount, isolation: { utilityVM: { id: 'x' } }, expectedRootHash: DIGEST }],
    ['Mount', { ...mount, suspend: true }],
    [
      'Mount',
      { ...mount, suspend: { reason: 'maintenance', by: 'ops' }, dependsOn: [{ kind: 'Mount', name: 'y' }] },
    ],
    ['Mount', { ...mount, retry: { limit: 0, backoff: '500ms' }, timeout: '5m', driftPolicy: 'Report' }],
    ['Mount', { ...mount, deletionPolicy: 'Orphan', hosts: { matchLabels: { zone: 'a' } } }],
  ])('%s %j', (kind, spec) => {
    expect(messages(kind, spec)).toEqual([]);
  });

  it.each<[object]>([
    [{ name: 'a' }],
    [{ name: 'a.b-c.9' }],
    [{ name: 'a'.repeat(253) }],
    [
      {
        name: 'a',
        labels: { 'example.com/team': 'x' },
        annotations: { note: 'any text', 'cimlet.dev/prune': 'disabled' },
      },
    ],
    [{ name: 'a', annotations: { 'cimlet.dev/prune-confirmed': 'main@sha1:00' } }],
  ])('metadata %j', (metadata) => {
    expect(messages('Image', layout, metadata)).toEqual([]);
  });
});

const FORMAT_RULE = 'must be `sha256:` followed by 64 lowercase hexadecimal digits';
const NAME_RULE =
  'must be a name: lowercase letters, digits, `-` and `.`, beginning and ending with a letter or digit';

describe('what the schemas reject', () => {
  it.each<[string, unknown, string[]]>([
    ['Image', {}, ['spec.source is missing']],
    ['Image', null, ['spec has no value; it must be a map']],
    [
      'Image',
      { source: {} },
      ['spec.source needs exactly one of registry, ociLayout, dockerArchive; found none'],
    ],
    [
      'Image',
      { source: { registry: 'a', ociLayout: 'b' } },
      ['spec.source needs exactly one of registry, ociLayout, dockerArchive; found registry, ociLayout'],
    ],
    ['Image', { source: { ociLayuot: 'b' } }, ['unknown field "ociLayuot" in spec.source (ociLayout?)']],
    ['Image', { source: { ociLayout: '' } }, ['spec.source.ociLayout is empty']],
    ['Image', { source: 'x' }, ['spec.source must be a map, is the string "x"']],
    [
      'Image',
      { ...layout, platform: { os: 'Windows' } },
      ['spec.platform.os is "Windows"; it is one of windows, linux (windows?)'],
    ],
    [
      'Image',
      { ...layout, platform: { osVersion: 10.5 } },
      [
        'spec.platform.osVersion must be a version such as `10.0.26100` or `10.0.26100.1742` (in quotes), is the number 10.5',
      ],
    ],
    [
      'Image',
      { ...layout, pullPolicy: 'Sometimes' },
      ['spec.pullPolicy is "Sometimes"; it is one of Always, IfNotPresent, Never'],
    ],
    [
      'Image',
      { ...layout, interval: '1 hour' },
      ['spec.interval must be a duration such as `45s`, `10m` or `1h30m`, is "1 hour"'],
    ],
    ['Image', { ...layout, digest: 'sha256:0' }, [`spec.digest ${FORMAT_RULE}, is "sha256:0"`]],
    ['Image', { ...layout, policy: {} }, ['spec.policy needs exactly one of semver, regex; found none']],
    [
      'Image',
      { ...layout, policy: { semver: '1', order: 'numerical' } },
      ['spec.policy.order needs regex beside it'],
    ],
    [
      'Image',
      { ...layout, verify: { cosign: {} } },
      ['spec.verify.cosign needs at least one of keys, identities, trustedRoot'],
    ],
    [
      'Image',
      { ...layout, verify: { cosign: { keys: [] } } },
      ['spec.verify.cosign.keys must not be an empty list'],
    ],
    [
      'Image',
      { ...layout, verify: { notation: { trustPolicy: 'x' } } },
      ['spec.verify.notation.trustStore is missing'],
    ],
    ['LayerChain', {}, ['spec.layers is missing']],
    ['LayerChain', { layers: [] }, ['spec.layers must not be an empty list']],
    ['LayerChain', { layers: [{}] }, ['spec.layers[0] needs exactly one of image, archive; found none']],
    [
      'LayerChain',
      { layers: [{ image: 'a', archive: 'b' }] },
      ['spec.layers[0] needs exactly one of image, archive; found image, archive'],
    ],
    [
      'LayerChain',
      { layers: [{ image: 'a', digest: DIGEST }] },
      ['spec.layers[0].digest needs archive beside it'],
    ],
    ['LayerChain', { layers: ['a'] }, ['spec.layers[0] must be a map, is the string "a"']],
    [
      'LayerChain',
      { ...layers, format: 'ForkedCim' },
      ['spec.format is "ForkedCim"; it is one of ForkedCIM, BlockCIM, WCIFS, LCOW (ForkedCIM?)'],
    ],
    ['LayerChain', { ...layers, merge: 'yes' }, ['spec.merge must be true or false, is the string "yes"']],
    [
      'LayerChain',
      { ...layers, integrity: 'verified' },
      ['spec.integrity is "verified"; it is one of None, Verified (Verified?)'],
    ],
    ['LayerChain', { ...layers, vhdFooter: 1 }, ['spec.vhdFooter must be true or false, is the number 1']],
    ['Mount', { path: '/x' }, ['spec needs exactly one of chain, image; found none']],
    ['Mount', { ...mount, chain: 'y' }, ['spec needs exactly one of chain, image; found chain, image']],
    ['Mount', { chain: 'x' }, ['spec.path is missing']],
    [
      'Mount',
      { chain: 'x', path: 'mnt' },
      ['spec.path must be an absolute path such as `/mnt/app` or `C:\\mnt\\app`, is "mnt"'],
    ],
    ['Mount', { chain: 'x', pth: '/mnt' }, ['unknown field "pth" in spec (path?)']],
    ['Mount', { chian: 'x', path: '/mnt' }, ['unknown field "chian" in spec (chain?)']],
    ['Mount', { chain: 'X', path: '/mnt' }, [`spec.chain ${NAME_RULE}, is "X"`]],
    ['Mount', { ...mount, scratch: {} }, ['spec.scratch needs `access: ReadWrite`']],
    ['Mount', { ...mount, access: 'ReadOnly', scratch: {} }, ['spec.scratch needs `access: ReadWrite`']],
    [
      'Mount',
      { ...mount, access: 'ReadWrite', scratch: { size: '0' } },
      ['spec.scratch.size must be a size such as `512Mi` or `20Gi`, is "0"'],
    ],
    [
      'Mount',
      { ...mount, access: 'ReadWrite', scratch: { size: 0 } },
      ['spec.scratch.size must be at least 1, is 0'],
    ],
    [
      'Mount',
      { ...mount, isolation: {} },
      ['spec.isolation needs exactly one of process, utilityVM; found none'],
    ],
    ['Mount', { ...mount, isolation: { utilityVM: {} } }, ['spec.isolation.utilityVM.id is missing']],
    [
      'Mount',
      { ...mount, isolation: { process: { id: 1 } } },
      ['unknown field "id" in spec.isolation.process'],
    ],
    [
      'Mount',
      { ...mount, view: 'kernel' },
      ['spec.view is "kernel"; it is one of Kernel, Extracted (Kernel?)'],
    ],
    ['Mount', { ...mount, expectedRootHash: 'x' }, [`spec.expectedRootHash ${FORMAT_RULE}, is "x"`]],
    [
      'Mount',
      { ...mount, suspend: 'yes' },
      ['spec.suspend must be true or false or a map, is the string "yes"'],
    ],
    ['Mount', { ...mount, suspend: { by: 'ops' } }, ['spec.suspend.reason is missing']],
    ['Mount', { ...mount, suspend: { reson: 'x' } }, ['unknown field "reson" in spec.suspend (reason?)']],
    [
      'Mount',
      { ...mount, dependsOn: [{ kind: 'image', name: 'x' }] },
      ['spec.dependsOn[0].kind is "image"; it is one of Image, LayerChain, Mount (Image?)'],
    ],
    ['Mount', { ...mount, dependsOn: [{ name: 'x' }] }, ['spec.dependsOn[0].kind is missing']],
    ['Mount', { ...mount, retry: { limit: -1 } }, ['spec.retry.limit must be at least 0, is -1']],
    [
      'Mount',
      { ...mount, retry: { limit: 1.5 } },
      ['spec.retry.limit must be a whole number, is the number 1.5'],
    ],
    [
      'Mount',
      { ...mount, retry: { backoff: 5 } },
      ['spec.retry.backoff must be a duration such as `45s`, `10m` or `1h30m` (in quotes), is the number 5'],
    ],
    [
      'Mount',
      { ...mount, timeout: '' },
      ['spec.timeout is empty; it must be a duration such as `45s`, `10m` or `1h30m`'],
    ],
    [
      'Mount',
      { ...mount, driftPolicy: 'repair' },
      ['spec.driftPolicy is "repair"; it is one of Repair, Report (Repair?)'],
    ],
    [
      'Mount',
      { ...mount, deletionPolicy: 'Keep' },
      ['spec.deletionPolicy is "Keep"; it is one of Delete, Orphan'],
    ],
    ['Mount', { ...mount, hosts: {} }, ['spec.hosts.matchLabels is missing']],
  ])('%s %j', (kind, spec, expected) => {
    expect(messages(kind, spec)).toEqual(expected);
  });

  it.each<[unknown, string[]]>([
    [null, ['metadata has no value; it must be a map']],
    [{}, ['metadata.name is missing']],
    [{ name: 'a', namespace: 'b' }, ['unknown field "namespace" in metadata']],
    [{ name: '' }, ['metadata.name is empty']],
    [{ name: '-a' }, [`metadata.name ${NAME_RULE}, is "-a"`]],
    [{ name: 'a'.repeat(254) }, ['metadata.name is longer than 253 characters']],
    [{ name: 7 }, [`metadata.name ${NAME_RULE} (in quotes), is the number 7`]],
    [{ name: 'a', labels: { x: true } }, ['metadata.labels.x must be a string, is true; put it in quotes']],
    [{ name: 'a', labels: { '': 'x' } }, ['the key "" in metadata.labels is empty']],
    [
      { name: 'a', annotations: { 'cimlet.dev/prun': 'disabled' } },
      [
        'unknown key "cimlet.dev/prun" in metadata.annotations; of cimlet\'s own there are cimlet.dev/prune, cimlet.dev/prune-confirmed (cimlet.dev/prune?)',
      ],
    ],
    [
      { name: 'a', annotations: { 'cimlet.dev/prune': 'no' } },
      ['metadata.annotations["cimlet.dev/prune"] is "no"; it is one of enabled, disabled'],
    ],
  ])('metadata %j', (metadata, expected) => {
    expect(messages('Image', layout, metadata)).toEqual(expected);
  });

  it.each<[unknown, string]>([
    [null, 'a manifest is a map with apiVersion, kind, metadata and spec'],
    [[], 'a manifest is a map with apiVersion, kind, metadata and spec'],
    ['text', 'a manifest is a map with apiVersion, kind, metadata and spec'],
    [{}, 'apiVersion is missing; this release knows cimlet.dev/v1alpha1'],
    [{ apiVersion: 'v1' }, 'unknown apiVersion "v1"; this release knows cimlet.dev/v1alpha1'],
    [{ apiVersion: 'cimlet.dev/v1alpha1' }, 'kind is missing; it is one of Image, LayerChain, Mount'],
    [
      { apiVersion: 'cimlet.dev/v1alpha1', kind: 'List' },
      'unknown kind "List"; it is one of Image, LayerChain, Mount',
    ],
  ])('the document %j', (data, expected) => {
    expect(checkManifest(data).issues.map(({ message }) => message)).toEqual([expected]);
  });

  it('misplaced and read-only fields, with what to do instead', () => {
    const data = {
      apiVersion: 'cimlet.dev/v1alpha1',
      kind: 'Mount',
      metadata: { name: 'a' },
      path: '/x',
      status: {},
      spec: { ...mount, '<<': {} },
    };
    expect(checkManifest(data).issues.map(({ message, suggestion }) => [message, suggestion])).toEqual([
      ['unknown field "path"', 'spec.path'],
      ['status is written by cimlet only; leave it out', undefined],
      ['merge keys (<<) in spec are no part of YAML 1.2; repeat the fields, or use an alias', undefined],
    ]);
  });
});

describe('cimlet.yaml', () => {
  it.each<[object]>([
    [{}],
    [
      {
        root: '/var/lib/cimlet',
        host: 'embedded',
        logLevel: 'debug',
        listen: { address: '127.0.0.1:9180', tokenFile: 'token' },
        labels: { zone: 'a' },
      },
    ],
    [
      {
        sources: [
          { name: 'local', folder: { path: 'manifests' }, interval: '30s', prune: false, suspend: true },
        ],
      },
    ],
    [
      {
        sources: [
          {
            name: 'fleet',
            git: {
              url: 'https://git.example.com/fleet.git',
              ref: { branch: 'main' },
              path: 'nodes',
              verification: { mode: 'HEAD', keys: ['ops.asc'] },
              credentials: { username: 'bot', tokenFile: 'token' },
            },
          },
        ],
      },
    ],
    [
      {
        registry: {
          configPath: 'certs.d',
          credentials: [{ helper: 'wincred' }],
          limits: { connections: 2, bytesPerSecond: '10M' },
        },
      },
    ],
    [
      {
        gc: {
          enabled: false,
          interval: '1h',
          minAge: '1d',
          highThresholdPercent: 90,
          lowThresholdPercent: 70,
        },
      },
    ],
    [{ notifications: [{ name: 'chat', type: 'slack', urlFile: 'hook', severity: 'error' }] }],
    [
      {
        notifications: [
          { name: 'x', urlVariable: 'URL', kinds: ['Mount'], names: ['web-*'], reasons: ['Repaired'] },
        ],
      },
    ],
    [
      {
        concurrency: { fetching: 4, unpacking: 2, merging: 1, mounting: 2 },
        intervals: { resync: '5m' },
      },
    ],
  ])('accepts %j', (config) => {
    expect(checkDocument('agent', config)).toEqual([]);
  });

  it.each<[object, string]>([
    [{ rot: '/x' }, 'unknown field "rot"'],
    [{ host: 'linux' }, 'host is "linux"; it is one of auto, windows, embedded'],
    [
      { listen: { address: 'x:y', tokenFile: 't' } },
      'listen.address must be host and port such as `127.0.0.1:9180`, is "x:y"',
    ],
    [{ sources: [{ name: 'x' }] }, 'sources[0] needs exactly one of folder, git; found none'],
    [
      { sources: [{ name: 'x', git: { url: 'u', ref: {} } }] },
      'sources[0].git.ref needs exactly one of branch, tag, semver, commit; found none',
    ],
    [
      { sources: [{ name: 'x', git: { url: 'u', credentials: { tokenVariable: 'no name' } } }] },
      'sources[0].git.credentials.tokenVariable must be the name of an environment variable, is "no name"',
    ],
    [
      { sources: [{ name: 'x', folder: { path: 'p', watch: 'polling' } }] },
      'sources[0].folder.watch is "polling"; it is one of Events, Polling',
    ],
    [
      { sources: [{ name: 'x', git: { url: 'u', webhook: { provider: 'GitHub' } } }] },
      'sources[0].git.webhook.secretFile is missing',
    ],
    [
      { sources: [{ name: 'x', git: { url: 'u', credentials: { sshKeyFile: 'k' } } }] },
      'sources[0].git.credentials.sshKeyFile needs knownHostsFile beside it',
    ],
    [
      { registry: { credentials: [{ passwordFile: 'p', username: 'u' }] } },
      'registry.credentials[0].passwordFile needs registry, username beside it',
    ],
    [{ gc: { highThresholdPercent: 101 } }, 'gc.highThresholdPercent must be at most 100, is 101'],
    [{ concurrency: { merging: 0 } }, 'concurrency.merging must be at least 1, is 0'],
  ])('rejects %j', (config, expected) => {
    expect(checkDocument('agent', config).map(({ message }) => message)).toEqual([expected]);
  });
});

/** The compiler sees to it that each list is the whole union; the tests, that the schema has the same. */
const REASONS: Record<ReasonCode, true> = {
  new: true,
  'needed-by': true,
  'spec-changed': true,
  'image-changed': true,
  'layers-changed': true,
  'path-changed': true,
  'view-changed': true,
  'layer-missing': true,
  'file-missing': true,
  'file-size': true,
  'file-corrupt': true,
  'snapshot-folder-missing': true,
  'parent-missing': true,
  'parent-rebuilt': true,
  'builder-changed': true,
  'seal-changed': true,
  'footer-changed': true,
  'merge-missing': true,
  'source-changed': true,
  interrupted: true,
  unmounted: true,
  covered: true,
  'removed-from-manifests': true,
  'delete-requested': true,
  unreferenced: true,
};
const VERBS: Record<Verb, true> = { create: true, change: true, replace: true, repair: true, delete: true };
const KINDS: Record<Kind, true> = { Image: true, LayerChain: true, Mount: true };
const ACTION_KINDS: Record<ActionKind, true> = { ...KINDS, Snapshot: true, Merge: true };
const BLOCKED: Record<ErrorCode | 'internal' | 'dependency' | 'suspended', true> = {
  internal: true,
  'not-found': true,
  'already-exists': true,
  'failed-precondition': true,
  'invalid-manifest': true,
  'unsupported-host': true,
  'access-denied': true,
  busy: true,
  unavailable: true,
  'no-space': true,
  corrupt: true,
  cancelled: true,
  native: true,
  dependency: true,
  suspended: true,
};
const FORMATS: Record<LayerFormat, true> = { ForkedCIM: true, BlockCIM: true, WCIFS: true, LCOW: true };
const VIEWS: Record<ViewKind, true> = { Kernel: true, Extracted: true };
const ACCESSES: Record<MountAccess, true> = { ReadOnly: true, ReadWrite: true };
const FAULTS: Record<LayerFault['code'], true> = {
  'file-missing': true,
  'file-size': true,
  'file-corrupt': true,
  'snapshot-folder-missing': true,
  'parent-missing': true,
  'parent-rebuilt': true,
  'builder-changed': true,
};
const MERGE_FAULTS: Record<MergeFault['code'], true> = {
  'file-missing': true,
  'file-size': true,
  'file-corrupt': true,
  'source-missing': true,
  'source-changed': true,
  'builder-changed': true,
};
const MOUNT_STATES: Record<ObservedMount['state'], true> = { mounted: true, missing: true, covered: true };
const PATH_KINDS: Record<PathState['kind'], true> = {
  absent: true,
  'empty-directory': true,
  directory: true,
  file: true,
  symlink: true,
  'foreign-mount': true,
  'own-mount': true,
  unreadable: true,
};
const HOST_KINDS: Record<HostState['host']['kind'], true> = { windows: true, embedded: true, memory: true };
const PLAN_HOSTS: Record<Plan['host']['kind'], true> = { ...HOST_KINDS, offline: true };
const CAPABILITIES: Record<Capability, true> = {
  'ForkedCIM.write': true,
  'BlockCIM.write': true,
  'WCIFS.write': true,
  'LCOW.write': true,
  'ForkedCIM.mount': true,
  'BlockCIM.mount': true,
  'WCIFS.mount': true,
  'LCOW.mount': true,
  merge: true,
  seal: true,
  'view.Kernel': true,
  'view.Extracted': true,
  active: true,
  commit: true,
  export: true,
  utilityVM: true,
};
const WORKS: Record<Work['do'], true> = {
  resolveImage: true,
  buildLayer: true,
  mergeChain: true,
  removeMerge: true,
  recordChain: true,
  mountView: true,
  dismountView: true,
  removeLayer: true,
  forget: true,
};

describe('schemas and source name the same values', () => {
  it.each<[string, string, Record<string, true>]>([
    ['plan', '$defs.ReasonCode.enum', REASONS],
    ['plan', '$defs.Verb.enum', VERBS],
    ['plan', '$defs.Action.properties.kind.enum', ACTION_KINDS],
    ['plan', '$defs.BlockedCode.enum', BLOCKED],
    ['plan', 'properties.host.properties.kind.enum', PLAN_HOSTS],
    ['host-state', '$defs.LayerFormat.enum', FORMATS],
    ['host-state', '$defs.ViewKind.enum', VIEWS],
    ['host-state', '$defs.MountAccess.enum', ACCESSES],
    ['host-state', '$defs.HostKind.enum', HOST_KINDS],
    ['host-state', '$defs.LayerFault.properties.code.enum', FAULTS],
    ['host-state', '$defs.MergeFault.properties.code.enum', MERGE_FAULTS],
    ['host-state', '$defs.ObservedMount.properties.state.enum', MOUNT_STATES],
    ['host-state', '$defs.PathState.properties.kind.enum', PATH_KINDS],
    ['host-state', 'properties.capabilities.required', CAPABILITIES],
    ['common', '$defs.Kind.enum', KINDS],
    ['layerchain', 'properties.spec.properties.format.enum', FORMATS],
    ['mount', 'properties.spec.properties.view.enum', VIEWS],
    ['mount', 'properties.spec.properties.access.enum', ACCESSES],
  ])('%s %s', async (name, path, union) => {
    const found = path
      .split('.')
      .reduce<unknown>((part, step) => (part as Record<string, unknown>)[step], await readSchema(name));
    expect([...(found as string[])].sort()).toEqual(Object.keys(union).sort());
  });

  it('plan: every kind of work', async () => {
    const { $defs } = await readSchema('plan');
    const branches = $defs?.Work?.oneOf as Schema[];
    const named = branches.map((branch) => branch.properties?.do?.const as string);
    expect(named.sort()).toEqual(Object.keys(WORKS).sort());
  });
});

const chainId = DIGEST as ChainId;
const volumeGuid = 'g' as VolumeGuid;
const blob: LayerBlob = { file: '/x', offset: 0, size: 1, digest: DIGEST as Digest, mediaType: 'm' };
const chain: LayerRef = { chainId, format: 'ForkedCIM' };
const works: Work[] = [
  { do: 'resolveImage', image: 'a', digest: DIGEST as Digest, blobs: [blob] },
  { do: 'buildLayer', request: { ...chain, diffId: DIGEST as DiffId, parents: [chainId], blob } },
  {
    do: 'buildLayer',
    request: { ...chain, diffId: DIGEST as DiffId, parents: [], blob, seal: true, vhdFooter: true },
  },
  {
    do: 'mergeChain',
    request: { chain: [chainId, chainId], format: 'BlockCIM', seal: true, vhdFooter: true },
  },
  { do: 'removeMerge', top: chain },
  { do: 'recordChain', chain: 'a', format: 'ForkedCIM', chainIds: [chainId] },
  { do: 'recordChain', chain: 'a', format: 'BlockCIM', chainIds: [chainId], merged: true },
  {
    do: 'mountView',
    request: {
      volumeGuid,
      path: '/m',
      chain: [chainId],
      format: 'ForkedCIM',
      access: 'ReadOnly',
      view: 'Kernel',
      expectedRootHash: DIGEST,
    },
    replaces: volumeGuid,
  },
  { do: 'dismountView', volumeGuid, path: '/m' },
  { do: 'removeLayer', ref: chain },
  { do: 'forget', key: 'Image/a' },
];

function planOf(work: Work): Plan {
  return {
    formatVersion: 1,
    revision: 'folder@sha256:00',
    mode: 'apply',
    host: { kind: 'offline', root: '/var/lib/cimlet' },
    actions: [
      {
        id: 'Image/a',
        kind: 'Image',
        name: 'a',
        verb: 'create',
        drift: false,
        reasons: [{ code: 'new', message: 'm' }],
        bytes: 0,
        detail: '',
        dependsOn: [],
        neededBy: 'Mount/a',
        work,
      },
    ],
    blocked: [
      {
        key: 'Mount/b',
        code: 'dependency',
        message: 'm',
        hint: 'h',
        position: { file: '-', line: 1, column: 1 },
      },
    ],
    notes: [{ message: 'm' }, { key: 'Mount/a', message: 'm' }],
    summary: {
      create: 1,
      change: 0,
      replace: 0,
      repair: 0,
      delete: 0,
      drift: 0,
      blocked: 1,
      unchanged: 0,
      bytes: 0,
    },
  };
}

describe('plans', () => {
  it.each(works)('%j', (work) => {
    expect(checkDocument('plan', planOf(work))).toEqual([]);
  });

  it('rejects what is none', () => {
    const broken = { ...planOf({ do: 'dance' } as unknown as Work), mode: 'aply', extra: 1 };
    expect(checkDocument('plan', broken).map(({ message }) => message)).toEqual([
      'unknown field "extra"',
      'mode is "aply"; it is one of apply, delete',
      'actions[0].work is none of the maps it may be',
    ]);
  });
});

describe('host states', () => {
  const available = { available: true };
  const state = {
    formatVersion: 1,
    host: { kind: 'embedded', platform: 'linux', osVersion: '6.18', architecture: 'amd64' },
    root: '/var/lib/cimlet',
    capabilities: Object.fromEntries(Object.keys(CAPABILITIES).map((name) => [name, available])),
    layers: [
      {
        ...chain,
        diffId: DIGEST,
        parent: DIGEST,
        bytes: 1,
        files: 1,
        builder: 'b',
        rootHash: DIGEST,
        vhdFooter: true,
        faults: [{ code: 'file-missing', message: 'm', path: '/x' }],
      },
    ],
    merges: [
      {
        chain: [DIGEST, DIGEST],
        format: 'BlockCIM',
        bytes: 1,
        builder: 'b',
        rootHash: DIGEST,
        vhdFooter: true,
        faults: [{ code: 'source-changed', message: 'm', path: '/x' }],
      },
    ],
    mounts: [
      {
        ...chain,
        volumeGuid: 'g',
        path: '/m',
        view: 'Kernel',
        access: 'ReadOnly',
        state: 'covered',
        message: 'm',
      },
    ],
    snapshots: [
      {
        key: 'k',
        kind: 'active',
        chain: [chainId],
        format: 'LCOW',
        scratch: { bytes: 1, unformatted: true, location: '/l', shareWith: 'o', utilityVM: true },
        bytes: 1,
        files: 1,
        fault: 'f',
      },
    ],
    paths: { '/m': { kind: 'own-mount', detail: 'd' } },
    leftovers: [{ path: '/x', reason: 'r', bytes: 1 }],
    freeBytes: 1,
  };

  it('accepts what observe prints', () => {
    expect(checkDocument('host-state', state)).toEqual([]);
  });

  it('rejects what it does not', () => {
    const { root: _root, ...rest } = state;
    const broken = { ...rest, layers: [{ ...state.layers[0], format: 'CIM' }], freeBytes: 'many' };
    expect(checkDocument('host-state', broken).map(({ message }) => message)).toEqual([
      'freeBytes must be a whole number, is the string "many"',
      'root is missing',
      'layers[0].format is "CIM"; it is one of ForkedCIM, BlockCIM, WCIFS, LCOW',
    ]);
  });
});

describe('the schemas themselves', () => {
  it('describe every field', async () => {
    const files = (await readdir(new URL('schemas/', ROOT))).filter((file) => file.endsWith('.schema.json'));
    expect(files.sort()).toEqual(
      ['agent', 'common', 'host-state', 'image', 'layerchain', 'mount', 'plan'].map(
        (name) => `${name}.schema.json`,
      ),
    );
    const undescribed: string[] = [];
    const look = (part: unknown, path: string): void => {
      if (typeof part !== 'object' || part === null) return;
      if (path.endsWith('dependentSchemas')) return;
      for (const [key, value] of Object.entries(part as Schema)) {
        if (key === 'properties') {
          for (const [field, schema] of Object.entries(value as Record<string, Schema>)) {
            if (schema.description === undefined && schema.$ref === undefined)
              undescribed.push(`${path}.${field}`);
          }
        }
        look(value, `${path}.${key}`);
      }
    };
    for (const file of files) look(await readSchema(file.replace('.schema.json', '')), file);
    expect(undescribed).toEqual([]);
  });

  it('give every kind the same common fields', async () => {
    const specs = await Promise.all(
      ['image', 'layerchain', 'mount'].map(
        async (name) => (await readSchema(name)).properties?.spec?.properties ?? {},
      ),
    );
    const shared = ['suspend', 'dependsOn', 'retry', 'timeout', 'driftPolicy', 'deletionPolicy', 'hosts'];
    for (const field of shared) {
      expect(new Set(specs.map((spec) => JSON.stringify(spec[field]))).size, field).toBe(1);
    }
  });

  it('have given src/manifests/types.gen.ts', async () => {
    const committed = await readFile(new URL('src/manifests/types.gen.ts', ROOT), 'utf8');
    expect(committed, 'stale: run `npm run types:generate`').toBe(await generateTypes());
  });

  it('are checked for that by `npm run types:generate -- --check`', async () => {
    const script = fileURLToPath(new URL('scripts/generate-types.ts', ROOT));
    const run = promisify(execFile)(process.execPath, [
      '--disable-warning=ExperimentalWarning',
      script,
      '--check',
    ]);
    await expect(run).resolves.toEqual({ stdout: '', stderr: '' });
  });
});
