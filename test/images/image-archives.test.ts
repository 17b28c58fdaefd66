/** Tars of layouts and docker archives: made by real tools where they are there, by hand where they are to be wrong. */

import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CimletError } from '../../src/errors.ts';
import type { DiffId } from '../../src/hosts/host.ts';
import { openLayerStream } from '../../src/images/decode.ts';
import { type ImageLocation, openImageSource } from '../../src/images/image-source.ts';
import { writeOciLayout } from '../../src/images/layout-writer.ts';
import { resolveImage } from '../../src/images/resolve-image.ts';
import type { ResolvedImage } from '../../src/images/types.ts';
import { anyHost, never, OciFixture } from '../support/oci-fixture.ts';
import { hasTool, requireOrSkip } from '../support/requirements.ts';
import { makeTemporaryDirectory, sha256 } from '../support/stored-blob.ts';

const windows = { os: 'windows', architecture: 'amd64' };

function run(cwd: string, command: string, ...args: string[]): string {
  return execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

async function resolve(location: ImageLocation, signal = never): Promise<ResolvedImage> {
  return resolveImage(await openImageSource(location, '/', signal), anyHost, signal);
}

async function failure(promise: Promise<unknown>): Promise<CimletError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof CimletError) return error;
  throw error ?? new Error('expected an error');
}

/** Decodes every layer; fails when a digest or diff ID is wrong. */
async function readLayers(image: ResolvedImage): Promise<Buffer[]> {
  const layers: Buffer[] = [];
  for (const { blob, diffId } of image.layers) {
    const chunks: Buffer[] = [];
    for await (const chunk of openLayerStream(blob, { diffId })) chunks.push(chunk);
    layers.push(Buffer.concat(chunks));
  }
  return layers;
}

/** Three tars of real files. */
function makeTars(directory: string): string[] {
  return ['base', 'middle', 'top'].map((name) => {
    mkdirSync(join(directory, name, 'Files'), { recursive: true });
    writeFileSync(join(directory, name, 'Files', `${name}.txt`), `${name}\n`.repeat(10_000));
    run(directory, 'tar', '-C', name, '-cf', `${name}.tar`, '.');
    return join(directory, `${name}.tar`);
  });
}

describe('the layout writer', () => {
  it('writes what is read back, layer by layer, in every compression', async () => {
    const directory = makeTemporaryDirectory();
    const tars = makeTars(directory);
    const layout = join(directory, 'layout');
    const compressions = ['none', 'gzip', 'zstd'] as const;
    const [written] = await writeOciLayout(layout, {
      layers: tars.map((tar, index) => ({ tar, compression: compressions[index]! })),
      platform: { ...windows, osVersion: '10.0.26100.1742' },
      ref: 'v1',
    });
    const image = await resolve({ ociLayout: `${layout}:v1` });
    expect(image.digest).toBe(written!.digest);
    expect(image.platform).toEqual({ ...windows, osVersion: '10.0.26100.1742' });
    expect(await readLayers(image)).toEqual(tars.map((tar) => readFileSync(tar)));
  });

  it('writes the same bytes each time, and leaves nothing else', async () => {
    const directory = makeTemporaryDirectory();
    const tar = makeTars(directory)[0]!;
    const contents = [];
    for (const name of ['a', 'b', 'b']) {
      const image = { layers: [{ tar, compression: 'gzip' as const }], platform: windows };
      await writeOciLayout(join(directory, name), [image, { ...image, ref: 'second' }]);
      contents.push(run(directory, 'tar', '-C', name, '--sort=name', '--mtime=@0', '-cf', '-', '.'));
    }
    expect(contents[1]).toBe(contents[0]);
    expect(contents[2]).toBe(contents[0]);
    expect(run(directory, 'find', 'a', '-type', 'f').trim().split('\n')).toHaveLength(5);
  });

  it.runIf(requireOrSkip('umoci and skopeo', hasTool('umoci') && hasTool('skopeo')))(
    'satisfies skopeo and umoci',
    async () => {
      const directory = makeTemporaryDirectory();
      const tars = makeTars(directory);
      const layers = tars.map((tar, i) => ({
        tar,
        compression: i === 1 ? ('none' as const) : ('gzip' as const),
      }));
      const config = { Cmd: ['cmd.exe'] };
      const [written] = await writeOciLayout(join(directory, 'layout'), {
        layers,
        platform: windows,
        ref: 'v1',
        config,
      });
      const inspected = JSON.parse(
        run(directory, 'skopeo', 'inspect', '--override-os', 'windows', 'oci:layout:v1'),
      );
      expect(inspected).toMatchObject({ Digest: written!.digest, Os: 'windows' });
      expect(inspected.Layers).toEqual(written!.layers.map(({ digest }) => digest));
      run(directory, 'umoci', 'raw', 'unpack', '--image', 'layout:v1', 'unpacked');
      expect(readFileSync(join(directory, 'unpacked/Files/top.txt'), 'utf8')).toBe('top\n'.repeat(10_000));
    },
  );
});

describe.runIf(requireOrSkip('umoci and skopeo', hasTool('umoci') && hasTool('skopeo')))('real tools', () => {
  /** An image of two layers, by umoci; returns the tree it holds. */
  function buildWithUmoci(directory: string): void {
    run(directory, 'umoci', 'init', '--layout', 'layout');
    run(directory, 'umoci', 'new', '--image', 'layout:app');
    run(directory, 'umoci', 'unpack', '--image', 'layout:app', 'bundle');
    for (const name of ['first', 'second']) {
      mkdirSync(join(directory, 'bundle/rootfs/Files', name), { recursive: true });
      writeFileSync(join(directory, 'bundle/rootfs/Files', name, 'content'), `${name}\n`.repeat(50_000));
      run(directory, 'umoci', 'repack', '--refresh-bundle', '--image', 'layout:app', 'bundle');
    }
    run(directory, 'umoci', 'config', '--image', 'layout:app', '--os', 'windows', '--architecture', 'amd64');
  }

  it('a layout by umoci and its copies by skopeo hold the same layers', async () => {
    const directory = makeTemporaryDirectory();
    buildWithUmoci(directory);
    const copy = (to: string, ...options: string[]) =>
      run(directory, 'skopeo', 'copy', '-q', '--override-os', 'windows', ...options, 'oci:layout:app', to);
    copy('oci-archive:oci.tar:app');
    copy('docker-archive:docker.tar:example/app:v1');
    copy('oci:zstd:app', '--dest-compress-format', 'zstd');
    run(directory, 'tar', '-C', 'layout', '-cf', 'layout.tar', '.');

    const original = await resolve({ ociLayout: join(directory, 'layout') });
    const contents = await readLayers(original);
    expect(original.platform).toEqual({ ...windows, osVersion: undefined });
    expect(contents).toHaveLength(2);
    const copies: ImageLocation[] = [
      { ociLayout: `${directory}/layout.tar:app` },
      { ociLayout: `${directory}/oci.tar` },
      { ociLayout: `${directory}/zstd:app` },
      { dockerArchive: `${directory}/docker.tar` },
      { dockerArchive: `${directory}/docker.tar:example/app:v1` },
      { dockerArchive: `${directory}/docker.tar:docker.io/example/app:v1` },
    ];
    for (const location of copies) {
      const image = await resolve(location);
      expect(image.layers.map(({ diffId }) => diffId)).toEqual(original.layers.map(({ diffId }) => diffId));
      expect((await readLayers(image)).map(sha256)).toEqual(contents.map(sha256));
    }
    expect((await failure(resolve({ dockerArchive: `${directory}/docker.tar:other` }))).hint).toContain(
      'example/app:v1',
    );
    expect((await failure(resolve({ dockerArchive: `${directory}/oci.tar` }))).hint).toContain('ociLayout');
    expect((await failure(resolve({ ociLayout: `${directory}/docker.tar` }))).hint).toContain(
      'dockerArchive',
    );
  });
});

describe('a tar of a layout', () => {
  async function makeLayoutTar(directory: string, ...tarOptions: string[]): Promise<string> {
    const fixture = new OciFixture(join(directory, 'layout'));
    fixture.writeIndex([fixture.addImage(windows)]);
    run(directory, 'tar', '-C', 'layout', '-cf', 'layout.tar', ...tarOptions, '.');
    return join(directory, 'layout.tar');
  }

  it.each(['gnu', 'oldgnu', 'pax', 'posix', 'ustar'])(
    'in %s format, with names of any length',
    async (format) => {
      const prefix = `--transform=s,^\\./,./././,`;
      const tar = await makeLayoutTar(makeTemporaryDirectory(), `--format=${format}`, prefix);
      const image = await resolve({ ociLayout: tar });
      expect(image.layers[0]!.blob.file).toBe(tar);
      expect((await readLayers(image))[0]).toHaveLength(1024);
    },
  );

  it('compressed is refused with what to do', async () => {
    const directory = makeTemporaryDirectory();
    const tar = await makeLayoutTar(directory);
    writeFileSync(join(directory, 'layout.tar.gz'), gzipSync(readFileSync(tar)));
    const error = await failure(resolve({ ociLayout: join(directory, 'layout.tar.gz') }));
    expect(error.hint).toContain('gunzip');
  });

  it.each([
    ['nothing', Buffer.alloc(0)],
    ['a few bytes', Buffer.from('hello')],
    ['text', Buffer.alloc(2000, 'hello ')],
  ])('that is %s is said to be no tar', async (_, bytes) => {
    const file = join(makeTemporaryDirectory(), 'x.tar');
    writeFileSync(file, bytes);
    expect((await failure(resolve({ ociLayout: file }))).message).toContain('not a tar');
  });

  it('cut off or flipped anywhere never fails with anything but one clear error', async () => {
    const directory = makeTemporaryDirectory();
    const whole = readFileSync(await makeLayoutTar(directory, '--format=pax'));
    const file = join(directory, 'damaged.tar');
    const end = whole.lastIndexOf('oci-layout') + 2048;
    await fc.assert(
      fc.asyncProperty(
        fc.nat(Math.min(end, whole.length) - 1),
        fc.nat(7),
        fc.boolean(),
        async (at, bit, cut) => {
          const bytes = cut ? whole.subarray(0, at) : Buffer.from(whole);
          if (!cut) bytes[at]! ^= 1 << bit;
          writeFileSync(file, bytes);
          const outcome = await resolve({ ociLayout: file })
            .then(readLayers)
            .catch((error: unknown) => error);
          expect(outcome instanceof Error).toBe(outcome instanceof CimletError);
        },
      ),
      { numRuns: 300 },
    );
  });

  it('whose header declares more than there is names the offset', async () => {
    const directory = makeTemporaryDirectory();
    const file = await makeLayoutTar(directory, '--format=ustar');
    const bytes = readFileSync(file);
    const at = bytes.lastIndexOf('./index.json');
    bytes.write('77777777777\0', at + 124, 'latin1');
    bytes.fill(' ', at + 148, at + 156);
    const sum = bytes.subarray(at, at + 512).reduce((total, byte) => total + byte, 0);
    bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, at + 148, 'latin1');
    writeFileSync(file, bytes);
    const error = await failure(resolve({ ociLayout: file }));
    expect(error.code).toBe('corrupt');
    expect(error.message).toContain(`offset ${at}`);
  });
});

describe('a docker archive by hand', () => {
  const tar = Buffer.alloc(4096, 'layer');
  const diffId = sha256(tar);

  function makeArchive(
    change: (folder: string, manifest: Record<string, unknown>) => void = () => undefined,
  ): string {
    const directory = makeTemporaryDirectory();
    const folder = join(directory, 'archive');
    mkdirSync(join(folder, 'layers'), { recursive: true });
    writeFileSync(join(folder, 'layers/one.tar'), tar);
    writeFileSync(
      join(folder, 'config.json'),
      JSON.stringify({ ...windows, rootfs: { diff_ids: [diffId] } }),
    );
    const manifest = { Config: 'config.json', RepoTags: ['app:latest'], Layers: ['layers/one.tar'] };
    change(folder, manifest);
    writeFileSync(join(folder, 'manifest.json'), JSON.stringify([manifest]));
    run(directory, 'tar', '-C', 'archive', '-cf', 'archive.tar', '.');
    return join(directory, 'archive.tar');
  }

  it('a plain layer is its own diff ID', async () => {
    const [layer] = (await resolve({ dockerArchive: `${makeArchive()}:app` })).layers;
    expect(layer).toMatchObject({ diffId, blob: { digest: diffId, size: tar.length } });
  });

  it('a directory serves as well', async () => {
    const archive = makeArchive();
    expect((await resolve({ dockerArchive: join(archive, '../archive') })).layers).toHaveLength(1);
  });

  it("a compressed layer's digest is computed", async () => {
    const packed = gzipSync(tar);
    const archive = makeArchive((folder) => writeFileSync(join(folder, 'layers/one.tar'), packed));
    const image = await resolve({ dockerArchive: archive });
    expect(image.layers[0]).toMatchObject({ diffId, blob: { digest: sha256(packed) } });
    expect(await readLayers(image)).toEqual([tar]);
    const controller = new AbortController();
    const source = await openImageSource({ dockerArchive: archive }, '/', never);
    controller.abort();
    expect((await failure(resolveImage(source, anyHost, controller.signal))).code).toBe('cancelled');
  });

  it('a layer may be a link within the archive', async () => {
    const archive = makeArchive((folder, manifest) => {
      mkdirSync(join(folder, 'abc'));
      symlinkSync('../layers/one.tar', join(folder, 'abc/layer.tar'));
      manifest.Layers = ['abc/layer.tar'];
    });
    expect(await readLayers(await resolve({ dockerArchive: archive }))).toEqual([tar]);
  });

  it.each([
    ['/etc/passwd', 'an absolute path'],
    ['../../../../../../etc/passwd', 'a path out of it'],
    ['layers', 'a directory'],
    ['loop', 'a link to itself'],
    ['out', 'a link out of it'],
    ['absolute', 'a link to an absolute path'],
    ['nothing', 'not there'],
  ])('a layer `%s` (%s) is missing, not read', async (member) => {
    const archive = makeArchive((folder, manifest) => {
      symlinkSync('loop', join(folder, 'loop'));
      symlinkSync('../../../../../../etc/passwd', join(folder, 'out'));
      symlinkSync('/etc/passwd', join(folder, 'absolute'));
      manifest.Layers = [member];
    });
    const error = await failure(resolve({ dockerArchive: archive }));
    expect(error.code).toBe('not-found');
    expect(error.message).toContain(`missing layer ${member}`);
  });

  it('a configuration named by a digest must have it', async () => {
    const name = `${'0'.repeat(64)}.json`;
    const archive = makeArchive((folder, manifest) => {
      cpSync(join(folder, 'config.json'), join(folder, name));
      manifest.Config = name;
    });
    expect((await failure(resolve({ dockerArchive: archive }))).code).toBe('corrupt');
  });

  it('diff IDs and layers must be as many', async () => {
    const archive = makeArchive((_, manifest) => {
      manifest.Layers = [];
    });
    expect((await failure(resolve({ dockerArchive: archive }))).message).toContain('0 layers');
  });

  it('content that is not what the diff ID says is found when it is read', async () => {
    const archive = makeArchive((folder) =>
      writeFileSync(join(folder, 'layers/one.tar'), Buffer.alloc(4096, 'other')),
    );
    const image = await resolve({ dockerArchive: archive });
    const error = await failure(readLayers(image));
    expect(error.message).toContain(`expected digest ${diffId as DiffId}`);
  });

  it('without manifest.json is no archive', async () => {
    const archive = makeArchive();
    run(join(archive, '..'), 'tar', '--delete', '-f', 'archive.tar', './manifest.json');
    expect((await failure(resolve({ dockerArchive: archive }))).message).toContain('no file manifest.json');
    rmSync(archive);
    expect((await failure(resolve({ dockerArchive: archive }))).code).toBe('not-found');
  });
});
