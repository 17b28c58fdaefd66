/** The host moved away from the manifests, or the manifests from the host: the plan says so, apply sees to it. */

import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { createEmbeddedHost } from '../../src/hosts/embedded/embedded-host.ts';
import { layerItems } from '../support/host-layers.ts';
import { mountsBelow } from '../support/mounts.ts';
import { isRoot, requireOrSkip } from '../support/requirements.ts';
import { type AppOptions, BASE, brief, fingerprint, PATCH, World } from './world.ts';

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const kernel = requireOrSkip('root and kernel EROFS mounts', isRoot && capabilities['view.Kernel'].available);

async function applied(options: AppOptions = {}): Promise<World> {
  const world = new World();
  await world.image('app', [BASE, PATCH]);
  world.app(options);
  await world.apply();
  return world;
}

function umount(path: string): void {
  execFileSync('umount', [path]);
}

function mountForeign(path: string): void {
  execFileSync('mount', ['-t', 'tmpfs', 'foreign', path]);
}

/** The plan does exactly this and its text says so; apply does it; then there is nothing left to do. */
async function expectPlan(world: World, expected: string[], text = /./): Promise<void> {
  const before = fingerprint(world.root);
  const plan = await world.plan();
  expect(fingerprint(world.root)).toEqual(before);
  expect(brief(plan.actions)).toEqual(expected);
  expect(plan.blocked).toEqual([]);
  expect(plan.actions.flatMap(({ reasons }) => reasons.map(({ message }) => message)).join('\n')).toMatch(
    text,
  );
  const { stdout } = await world.apply();
  expect(stdout.includes('Drift (the host moved away')).toBe(expected.some((line) => line.startsWith('!')));
  await world.expectEmptyPlan();
}

/** The view shows all of both layers, from the data region as well. */
function expectShown(path: string): void {
  expect(readdirSync(path).sort()).toEqual(['a.txt', 'big', 'dir']);
  expect(readFileSync(join(path, 'dir/c.txt'), 'utf8')).toBe('gamma');
  expect(readFileSync(join(path, 'big'), 'utf8')).toBe('B'.repeat(9000));
}

const id = (path: string) => path.replace(/^.*\/|\.cim$/g, '');

const DRIFTS: [string, AppOptions, (world: World) => Promise<void> | void, string[], RegExp][] = [
  [
    'unmounted by hand',
    {},
    (world) => umount(world.mountPoint),
    ['!Mount/app repair unmounted'],
    /nothing is mounted at .*view/,
  ],
  [
    'unmounted by hand, its mount point and its view image gone',
    {},
    (world) => {
      umount(world.mountPoint);
      rmSync(world.mountPoint, { recursive: true });
      rmSync(join(world.root, 'views'), { recursive: true });
    },
    ['!Mount/app repair unmounted'],
    /nothing is mounted at/,
  ],
  [
    'unmounted by hand, its view image torn',
    {},
    (world) => {
      umount(world.mountPoint);
      const [image = ''] = readdirSync(join(world.root, 'views'));
      truncateSync(join(world.root, 'views', image), 2000);
    },
    ['!Mount/app repair unmounted'],
    /nothing is mounted at/,
  ],
  [
    'a region file of the base vanished',
    {},
    (world) => unlinkSync(world.layerFile(0, /region_.*_1$/)),
    ['!Snapshot repair file-missing'],
    /region_\S+_1 is gone/,
  ],
  [
    'a region file grew',
    {},
    (world) => appendFileSync(world.layerFile(1, /region_.*_0$/), 'x'),
    ['!Snapshot repair file-size'],
    /has \d+ bytes instead of \d+/,
  ],
  [
    'object IDs truncated',
    {},
    (world) => truncateSync(world.layerFile(0, /objectid_.*_0$/), 1),
    ['!Snapshot repair file-size'],
    /has 1 bytes instead of \d+/,
  ],
  [
    "a layer's .cim deleted",
    {},
    (world) => unlinkSync(world.layerFile(1, /\.cim$/)),
    ['!Snapshot repair file-missing'],
    /\.cim is gone/,
  ],
  [
    "the top layer's snapshot folder deleted",
    {},
    (world) => rmSync(join(world.root, 'snapshots', id(world.layerFile(1, /\.cim$/))), { recursive: true }),
    ['!Snapshot repair layer-missing'],
    /committed and is gone/,
  ],
  [
    "the base layer's snapshot folder deleted",
    {},
    (world) => rmSync(join(world.root, 'snapshots', id(world.layerFile(0, /\.cim$/))), { recursive: true }),
    ['!Snapshot repair layer-missing'],
    /committed and is gone/,
  ],
  [
    'all layers gone, under a mount',
    {},
    (world) => rmSync(join(world.root, 'cim-layers'), { recursive: true }),
    ['!Snapshot repair file-missing', '!Snapshot repair file-missing'].map((line) =>
      line.replace('file-missing', Array(7).fill('file-missing').join(',')),
    ),
    /is gone/,
  ],
  [
    "an extracted view's link removed",
    { view: 'Extracted' },
    (world) => unlinkSync(world.mountPoint),
    ['!Mount/app repair unmounted'],
    /is gone/,
  ],
  [
    "an extracted view's link replaced by an empty directory",
    { view: 'Extracted' },
    (world) => {
      unlinkSync(world.mountPoint);
      mkdirSync(world.mountPoint);
    },
    ['!Mount/app repair unmounted'],
    /is an empty directory/,
  ],
  [
    "an extracted view's tree removed",
    { view: 'Extracted' },
    (world) => rmSync(join(world.root, 'extracted'), { recursive: true }),
    ['!Mount/app repair unmounted'],
    /is gone/,
  ],
];

describe.runIf(kernel)('drift is told and repaired:', () => {
  test.each(DRIFTS)('%s', async (_name, options, disturb, expected, text) => {
    const world = await applied(options);
    await disturb(world);
    await expectPlan(world, expected, text);
    expectShown(world.mountPoint);
    expect(mountsBelow(world.directory)).toHaveLength(options.view === 'Extracted' ? 0 : 1);
  });

  test('a view image deleted under a live mount is no drift', async () => {
    const world = await applied();
    rmSync(join(world.root, 'views'), { recursive: true });
    await world.expectEmptyPlan();
    expectShown(world.mountPoint);
  });
});

/** Something foreign stands at the mount point: named, never touched, and its going is all it takes. */
const FOREIGN: [string, AppOptions, (world: World) => void, RegExp, (world: World) => void][] = [
  [
    'a mount over ours',
    {},
    (world) => {
      mountForeign(world.mountPoint);
      writeFileSync(join(world.mountPoint, 'foreign'), 'data');
    },
    /a mount that cimlet did not make.*hint: unmount what covers/s,
    (world) => umount(world.mountPoint),
  ],
  [
    'a mount over a directory above ours',
    { path: 'above/view' },
    (world) => mountForeign(world.path('above')),
    /hides it|mount that cimlet did not make/,
    (world) => umount(world.path('above')),
  ],
  [
    'a mount in place of ours',
    {},
    (world) => {
      umount(world.mountPoint);
      mkdirSync(world.mountPoint, { recursive: true });
      mountForeign(world.mountPoint);
    },
    /a mount that cimlet did not make.*tmpfs/s,
    (world) => umount(world.mountPoint),
  ],
  [
    'a directory in place of an extracted view',
    { view: 'Extracted' },
    (world) => {
      unlinkSync(world.mountPoint);
      mkdirSync(world.mountPoint);
      writeFileSync(join(world.mountPoint, 'foreign'), 'data');
    },
    /a directory that is not empty.*hint: move it away/s,
    (world) => rmSync(world.mountPoint, { recursive: true }),
  ],
  [
    'a file in place of an extracted view',
    { view: 'Extracted' },
    (world) => {
      unlinkSync(world.mountPoint);
      writeFileSync(world.mountPoint, 'data');
    },
    /there is a file at/,
    (world) => rmSync(world.mountPoint),
  ],
];

describe.runIf(kernel)('something foreign is told and left alone:', () => {
  test.each(FOREIGN)('%s', async (_name, options, disturb, text, undo) => {
    const world = new World();
    const path = options.path === undefined ? world.mountPoint : world.path(options.path);
    await world.image('app', [BASE, PATCH]);
    world.app({ ...options, path });
    await world.apply();
    disturb(world);
    const mounts = mountsBelow(world.directory);
    const foreign = fingerprint(world.directory, [world.root]);
    const { stdout } = await world.run(['plan', '-f', world.manifest], 1);
    expect(stdout.slice(stdout.indexOf('Blocked'))).toMatch(text);
    expect((await world.plan(1)).blocked).toMatchObject([{ key: 'Mount/app', code: 'already-exists' }]);
    await world.apply(1);
    expect(fingerprint(world.directory, [world.root])).toEqual(foreign);
    expect(mountsBelow(world.directory)).toEqual(mounts);
    undo(world);
    await world.apply();
    await world.expectEmptyPlan();
    expectShown(path);
  });

  test('from the start, in two ways', async () => {
    const world = new World();
    await world.image('app', [BASE, PATCH]);
    world.app();
    world.write('view/foreign', 'data');
    const plan = await world.plan(1);
    expect(plan.blocked).toMatchObject([{ key: 'Mount/app', code: 'already-exists' }]);
    await world.apply(1);
    expect(readdirSync(world.mountPoint)).toEqual(['foreign']);
    rmSync(world.mountPoint, { recursive: true });
    writeFileSync(world.mountPoint, 'a file');
    await world.apply(1);
    expect(lstatSync(world.mountPoint).isFile()).toBe(true);
  });
});

describe.runIf(kernel)('edited manifests:', () => {
  test('another path', async () => {
    const world = await applied();
    world.app({ path: world.path('elsewhere/view') });
    await expectPlan(world, ['Mount/app replace path-changed'], /from .*view to .*elsewhere\/view/);
    expectShown(world.path('elsewhere/view'));
    expect(existsSync(world.mountPoint)).toBe(false);
  });

  test('another view', async () => {
    const world = await applied();
    world.app({ view: 'Extracted' });
    await expectPlan(world, ['Mount/app replace view-changed'], /from Kernel to Extracted/);
    expectShown(world.mountPoint);
    expect(lstatSync(world.mountPoint).isSymbolicLink()).toBe(true);
  });

  test('another content of the image', async () => {
    const world = await applied();
    await world.image('app', [BASE, layerItems({ 'dir/c.txt': 'gamma two' })]);
    await expectPlan(world, [
      'Image/app change image-changed',
      'Snapshot create needed-by',
      'LayerChain/app replace image-changed',
      'Mount/app replace layers-changed',
      'Snapshot delete unreferenced',
    ]);
    expect(readFileSync(join(world.mountPoint, 'dir/c.txt'), 'utf8')).toBe('gamma two');
    expect((await world.observe()).layers).toHaveLength(2);
  });

  test('unmounted and moved at once', async () => {
    const world = await applied();
    umount(world.mountPoint);
    world.app({ path: world.path('elsewhere') });
    await expectPlan(world, ['Mount/app replace path-changed']);
    expectShown(world.path('elsewhere'));
    expect(existsSync(world.mountPoint)).toBe(false);
  });

  test('a Mount taken out is pruned; the rest as well when it goes too', async () => {
    const world = await applied();
    const text = world.appText();
    world.write('manifests/app.yaml', text.slice(0, text.lastIndexOf('---')));
    await expectPlan(world, ['Mount/app delete removed-from-manifests']);
    expect(existsSync(world.mountPoint)).toBe(false);
    world.write('manifests/app.yaml', text.slice(0, text.indexOf('---')));
    await expectPlan(world, [
      'LayerChain/app delete removed-from-manifests',
      'Snapshot delete unreferenced',
      'Snapshot delete unreferenced',
    ]);
    expect(readdirSync(join(world.root, 'cim-layers'))).toEqual([]);
  });

  test.each([
    [
      'pruning disabled',
      { mountMetadata: 'annotations: {cimlet.dev/prune: disabled}' },
      /cimlet\.dev\/prune is disabled/,
    ],
    ['deletionPolicy Orphan', { mountSpec: 'deletionPolicy: Orphan' }, /deletionPolicy is Orphan/],
  ])('a Mount taken out with %s stays, and so does what it shows', async (_name, options, note) => {
    const world = await applied(options);
    world.write('manifests/app.yaml', world.appText().slice(0, world.appText().indexOf('---')));
    const plan = await world.plan(0, '--detailed-exitcode');
    expect(plan.actions).toEqual([]);
    expect(plan.notes.find(({ key }) => key === 'Mount/app')?.message).toMatch(note);
    expect(plan.notes.find(({ key }) => key === 'LayerChain/app')?.message).toMatch(
      /Mount\/app still needs it/,
    );
    await world.apply();
    expectShown(world.mountPoint);
  });

  test('driftPolicy Report: drift is told, not repaired, until the policy changes', async () => {
    const world = await applied({ mountSpec: 'driftPolicy: Report', chainSpec: 'driftPolicy: Report' });
    umount(world.mountPoint);
    unlinkSync(world.layerFile(1, /region_.*_0$/));
    const plan = await world.plan();
    expect(plan.actions).toEqual([]);
    expect(plan.notes.map(({ key, message }) => `${key} ${message}`).sort()).toEqual([
      expect.stringMatching(/LayerChain\/app drift in layer .*only reported.*is gone/) as string,
      expect.stringMatching(/Mount\/app drift, only reported.*nothing is mounted/) as string,
    ]);
    await world.apply();
    expect(mountsBelow(world.directory)).toEqual([]);
    world.app();
    await world.apply();
    await world.expectEmptyPlan();
    expectShown(world.mountPoint);
  });

  test('suspended: nothing is done to it, and nothing pruned', async () => {
    const world = await applied();
    umount(world.mountPoint);
    world.app({ mountSpec: 'suspend: {reason: maintenance, by: ops}' });
    const { stdout } = await world.run(['plan', '-f', world.manifest]);
    expect(stdout).toMatch(/Mount\/app.*\n.*suspended.*maintenance/);
    await world.apply();
    expect(mountsBelow(world.directory)).toEqual([]);
    world.app();
    await expectPlan(world, ['!Mount/app repair unmounted']);
  });
});
