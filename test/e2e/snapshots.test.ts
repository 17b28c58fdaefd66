/** Writable Mounts and snapshots by hand, as the program does them on this machine's kernel. */

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { createEmbeddedHost } from '../../src/hosts/embedded/embedded-host.ts';
import { mountsBelow } from '../support/mounts.ts';
import { expectProgram } from '../support/program.ts';
import { hasTool, isRoot, requireOrSkip } from '../support/requirements.ts';
import { BASE, PATCH, WINDOWS, World } from './world.ts';

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const writable = requireOrSkip('root and overlayfs', isRoot && capabilities.active.available);
const hasSkopeo = requireOrSkip('skopeo', hasTool('skopeo'));
const hasUmoci = requireOrSkip('umoci', hasTool('umoci'));

async function applied(scratch = ''): Promise<World> {
  const world = new World();
  await world.image('app', [BASE, PATCH]);
  world.app({ mountSpec: `access: ReadWrite${scratch}` });
  await world.apply();
  return world;
}

const cimlet = (world: World, ...args: string[]) => expectProgram([...args, '--root', world.root]);

describe.runIf(writable)('a writable Mount', () => {
  test('keeps what was written through a reboot of the mount table, until it is deleted', async () => {
    const world = await applied();
    const { mountPoint } = world;
    writeFileSync(join(mountPoint, 'new.txt'), 'new');
    rmSync(join(mountPoint, 'a.txt'));
    await world.expectEmptyPlan();
    execFileSync('umount', [mountPoint]);
    await world.apply();
    expect(readdirSync(mountPoint).sort()).toEqual(['big', 'dir', 'new.txt']);
    expect(readFileSync(join(mountPoint, 'dir/c.txt'), 'utf8')).toBe('gamma');
    await world.expectEmptyPlan();
    await cimlet(world, 'delete', 'mount/app', '--yes');
    expect(mountsBelow(world.directory)).toEqual([]);
    expect(existsSync(mountPoint)).toBe(false);
    expect(readdirSync(join(world.root, 'snapshots')).filter((name) => name.length === 36)).toEqual([]);
  });

  test('has a real limit: who writes too much is told, and nothing else breaks', async () => {
    const world = await applied(', scratch: {size: 16Mi}');
    const { mountPoint } = world;
    expect(() => writeFileSync(join(mountPoint, 'large'), Buffer.alloc(2 ** 25, 'x'))).toThrow(/ENOSPC/);
    rmSync(join(mountPoint, 'large'));
    writeFileSync(join(mountPoint, 'small'), 'fits');
    execFileSync('umount', [mountPoint]);
    await world.apply();
    expect(readFileSync(join(mountPoint, 'small'), 'utf8')).toBe('fits');
  });

  test('keeps its scratch where it is told', async () => {
    const world = new World();
    await world.image('app', [BASE]);
    mkdirSync(world.path('elsewhere'));
    world.app({
      mountSpec: `access: ReadWrite, scratch: {size: 16Mi, location: ${world.path('elsewhere')}}`,
    });
    await world.apply();
    const [place = ''] = readdirSync(world.path('elsewhere'));
    expect(place).toMatch(/^cimlet-/);
    expect(statSync(world.path('elsewhere', place, 'scratch.ext4')).size).toBe(2 ** 24);
    await cimlet(world, 'delete', 'mount/app', '--yes');
    expect(readdirSync(world.path('elsewhere'))).toEqual([]);
  });

  test('is written out as a layer, which gives the same files elsewhere', async () => {
    const world = await applied();
    const { mountPoint } = world;
    writeFileSync(join(mountPoint, 'new.txt'), 'new');
    rmSync(join(mountPoint, 'dir/b.txt'));
    const tar = world.path('changes.tar');
    const { stdout } = await cimlet(world, 'layer', 'diff', 'mount/app', '-o', tar);
    const sum = execFileSync('sha256sum', [tar], { encoding: 'utf8' }).slice(0, 64);
    expect(stdout).toContain(`digest   sha256:${sum}`);
    expect(stdout).toContain(`diff ID  sha256:${sum}`);
    const { image, beside } = { image: world.path('images/app'), beside: world.path('copy') };
    world.write(
      'other/app.yaml',
      `apiVersion: cimlet.dev/v1alpha1
kind: Image
metadata: {name: app}
spec: {source: {ociLayout: ${image}}, platform: {os: windows, architecture: amd64}}
---
apiVersion: cimlet.dev/v1alpha1
kind: LayerChain
metadata: {name: app}
spec: {format: ForkedCIM, layers: [{image: app}, {archive: ${tar}}]}
---
apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: {name: copy}
spec: {chain: app, path: ${beside}}
`,
    );
    const root = world.path('other-root');
    await expectProgram(['apply', '-f', world.path('other'), '--root', root, '--yes']);
    execFileSync('diff', ['-r', mountPoint, beside]);
    execFileSync('umount', [beside]);
  });
});

describe.runIf(writable)('snapshots by hand', () => {
  test('prepare, ls, label, usage, mounts, commit, view, rm', async () => {
    const world = await applied();
    const { layers } = await world.observe();
    const top = layers.find(({ chainId }) => layers.every(({ parent }) => parent !== chainId));
    await cimlet(world, 'snapshot', 'prepare', 'work', '--parent', top?.chainId ?? '', '--label', 'team=a');
    const { stdout: mounts } = await cimlet(world, 'snapshot', 'mounts', 'work', '-o', 'json');
    expect((JSON.parse(mounts) as { type: string }[]).map(({ type }) => type)).toEqual([
      'erofs',
      'format/overlay',
    ]);
    const { stdout: made } = await cimlet(world, 'snapshot', 'commit', 'base', 'work', '--label', 'team=b');
    expect(made).toMatch(/^base: \w+ layer sha256:[0-9a-f]{64}$/m);
    const chainId = made.trim().slice(-71);
    const refused = await expectProgram(['layer', 'remove', chainId, '--root', world.root], 1);
    expect(refused.stderr).toContain('it is the snapshot base\nhint: cimlet snapshot rm base');
    await cimlet(world, 'snapshot', 'view', 'look', '--parent', 'base', '--label', 'flag');
    await cimlet(world, 'snapshot', 'label', 'look', 'x=1');
    const { stdout: list } = await cimlet(world, 'snapshot', 'ls');
    expect(list).toMatch(
      /NAME +KIND +PARENT +FORMAT +LABELS\nbase +committed .*team=b\nlook +view +base .*flag=true,x=1/,
    );
    const { stdout: filtered } = await cimlet(
      world,
      'snapshot',
      'ls',
      '--filter',
      'kind==view',
      '-o',
      'json',
    );
    expect((JSON.parse(filtered) as { name: string }[]).map(({ name }) => name)).toEqual(['look']);
    await expectProgram(['snapshot', 'rm', 'base', '--root', world.root], 1);
    await cimlet(world, 'snapshot', 'usage', 'base');
    await cimlet(world, 'snapshot', 'rm', 'look');
    await cimlet(world, 'snapshot', 'rm', 'base');
    await world.expectEmptyPlan();
  });

  test('a layer is only ever compared with its own parent', async () => {
    const world = new World();
    const tar = world.path('diff.tar');
    await cimlet(world, 'snapshot', 'prepare', 'one');
    await cimlet(world, 'layer', 'diff', 'one', '--parent', '', '-o', tar);
    await cimlet(world, 'snapshot', 'commit', 'base', 'one');
    await cimlet(world, 'snapshot', 'prepare', 'two', '--parent', 'base');
    await cimlet(world, 'layer', 'diff', 'two', '--parent', 'base', '-o', tar);
    for (const parent of ['', 'two', 'other'])
      await expectProgram(['layer', 'diff', 'two', '--parent', parent, '-o', tar, '--root', world.root], 1);
    await cimlet(world, 'snapshot', 'view', 'look', '--parent', 'base');
    await cimlet(world, 'layer', 'diff', 'look', '--parent', 'base', '-o', tar);
  });
});

describe.runIf(writable && hasSkopeo && hasUmoci)('image export', () => {
  test('writes a layout that others accept, and that gives the same files again', async () => {
    const world = await applied();
    const layout = world.path('images/exported');
    await cimlet(world, 'image', 'export', 'chain/app', '-o', layout, '--tag', 'v1');
    const inspected = execFileSync('skopeo', ['inspect', `oci:${layout}:v1`], { encoding: 'utf8' });
    expect(JSON.parse(inspected)).toMatchObject({ Os: 'windows' });
    execFileSync('skopeo', [
      'copy',
      '--override-os',
      'windows',
      `oci:${layout}:v1`,
      `oci:${world.path('copied')}:v1`,
    ]);
    expect(execFileSync('umoci', ['ls', '--layout', layout], { encoding: 'utf8' })).toContain('v1');
    execFileSync('umoci', ['stat', '--image', `${layout}:v1`]);
    // Windows picks images by it.
    const raw = execFileSync('skopeo', ['inspect', '--config', '--raw', `oci:${layout}:v1`], {
      encoding: 'utf8',
    });
    expect(JSON.parse(raw)['os.version']).toBe(WINDOWS.osVersion);
    world.write(
      'again/app.yaml',
      `apiVersion: cimlet.dev/v1alpha1
kind: Image
metadata: {name: again}
spec: {source: {ociLayout: ../images/exported}, platform: {os: windows, architecture: amd64}}
---
apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: {name: again}
spec: {image: again, path: ${world.path('again-view')}}
`,
    );
    const root = world.path('again-root');
    await expectProgram(['apply', '-f', world.path('again'), '--root', root, '--yes']);
    execFileSync('diff', ['-r', world.mountPoint, world.path('again-view')]);
  });
});

describe.runIf(hasSkopeo && hasUmoci)('image export', () => {
  test("keeps an image's configuration, and says what was added to it", async () => {
    const world = new World();
    const umoci = (...args: string[]) => execFileSync('umoci', args, { cwd: world.directory });
    umoci('init', '--layout', 'layout');
    umoci('new', '--image', 'layout:v1');
    for (const name of ['one', 'two']) {
      mkdirSync(world.path(`tree-${name}`));
      writeFileSync(world.path(`tree-${name}/${name}`), name);
      umoci('insert', '--image', 'layout:v1', `tree-${name}`, `/srv/${name}`);
    }
    const settings = ['--os=linux', '--architecture=amd64', '--config.env=A=b=c', '--config.cmd=run'];
    settings.push('--config.entrypoint=/bin/app', '--config.user=1:2', '--config.workingdir=/srv');
    settings.push('--config.label=team=web', '--config.exposedports=80/tcp', '--author=somebody');
    umoci('config', '--image', 'layout:v1', ...settings);
    const configOf = (layout: string) => {
      const { rootfs, ...config } = JSON.parse(
        execFileSync('skopeo', ['inspect', '--config', '--raw', `oci:${layout}`], { encoding: 'utf8' }),
      );
      return { layers: rootfs.diff_ids.length, config };
    };
    const original = configOf(world.path('layout:v1'));
    expect(original.config).toMatchObject({ author: 'somebody', config: { Entrypoint: ['/bin/app'] } });

    world.write(
      'manifests/app.yaml',
      `apiVersion: cimlet.dev/v1alpha1
kind: Image
metadata: {name: app}
spec: {source: {ociLayout: "../layout:v1"}, platform: {os: linux, architecture: amd64}}
`,
    );
    await world.run(['apply', '-f', world.manifest, '--yes']);
    const none = await world.run(['image', 'export', 'image/app', '-o', world.path('none')], 1);
    expect(none.stderr).toContain('no layers were made of image/app');
    world.write(
      'manifests/chain.yaml',
      `apiVersion: cimlet.dev/v1alpha1
kind: LayerChain
metadata: {name: app}
spec: {layers: [{image: app}]}
`,
    );
    await world.run(['apply', '-f', world.path('manifests'), '--yes']);
    for (const name of ['image/app', 'chain/app']) {
      const layout = world.path(name.replace('/', '-'));
      await world.run(['image', 'export', name, '-o', layout, '--tag', 'v1']);
      expect(configOf(`${layout}:v1`)).toEqual(original);
      umoci('stat', '--image', `${layout}:v1`);
    }

    const added = world.path('added.tar');
    execFileSync('tar', ['-cf', added, '-C', world.path('tree-one'), '.']);
    const imported = await world.run(['layer', 'import', added, '--parent', 'chain/app', '-o', 'json']);
    const { chainId } = JSON.parse(imported.stdout);
    await world.run(['image', 'export', `snapshot/${chainId}`, '-o', world.path('more'), '--tag', 'v1']);
    const { config, layers } = configOf(world.path('more:v1'));
    expect(layers).toBe(original.layers + 1);
    expect(config).toEqual({
      ...original.config,
      history: [...original.config.history, { created_by: 'cimlet image export' }],
    });
  });
});
