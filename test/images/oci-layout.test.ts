import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CimletError } from '../../src/errors.ts';
import { openImageSource } from '../../src/images/image-source.ts';
import { resolveImage } from '../../src/images/resolve-image.ts';
import {
  anyHost,
  CONFIG,
  INDEX,
  MANIFEST,
  never,
  OciFixture,
  withPlatform,
  withRef,
} from '../support/oci-fixture.ts';
import { makeTemporaryDirectory, sha256 } from '../support/stored-blob.ts';

const server2022 = { os: 'windows', architecture: 'amd64', osVersion: '10.0.20348.2700' };
const server2025 = { os: 'windows', architecture: 'amd64', osVersion: '10.0.26100.1742' };
const linux = { os: 'linux', architecture: 'amd64' };
const windowsHost = { os: 'windows', architecture: 'amd64', osVersion: '10.0.26100.2000' };

function newFixture(): OciFixture {
  return new OciFixture(join(makeTemporaryDirectory(), 'layout'));
}

async function failure(promise: Promise<unknown>): Promise<CimletError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof CimletError) return error;
  throw error ?? new Error('expected an error');
}

function digestsIn(text: string): string[] {
  return [...text.matchAll(/sha256:[0-9a-f]{64}/g)].map(([digest]) => digest);
}

describe('choosing', () => {
  it('takes the only image, and its platform from the configuration', async () => {
    const fixture = newFixture();
    const image = fixture.addImage(server2025);
    fixture.writeIndex([image]);
    const resolved = await fixture.resolve();
    expect(resolved).toMatchObject({ digest: image.digest, platform: server2025 });
    expect(resolved.layers).toHaveLength(1);
    expect(resolved.bytes).toBe(resolved.layers[0]!.blob.size);
    expect(sha256(readFileSync(resolved.layers[0]!.blob.file))).toBe(resolved.layers[0]!.blob.digest);
  });

  it.each([
    ['states its platforms', withPlatform],
    ['leaves them to the configurations', (entry: ReturnType<OciFixture['addImage']>) => entry],
  ])('goes by platform in an index that %s', async (_, state) => {
    const fixture = newFixture();
    const images = [linux, server2022, server2025].map((platform) =>
      state(fixture.addImage(platform), platform),
    );
    fixture.writeIndex(images);
    expect((await fixture.resolve({ host: windowsHost })).digest).toBe(images[2]!.digest);
    expect((await fixture.resolve({ host: windowsHost, platform: { osVersion: '10.0.20348' } })).digest).toBe(
      images[1]!.digest,
    );
    expect((await fixture.resolve({ host: windowsHost, platform: { os: 'linux' } })).digest).toBe(
      images[0]!.digest,
    );
  });

  it('follows nested indexes and passes over what is no image', async () => {
    const fixture = newFixture();
    const wanted = fixture.addImage(server2025);
    const attestation = withPlatform(fixture.addImage(linux), { os: 'unknown', architecture: 'unknown' });
    const artifact = fixture.addBlob(MANIFEST, {
      config: fixture.addBlob('application/vnd.oci.empty.v1+json', {}),
      layers: [],
    });
    const signature = fixture.addBlob('application/vnd.dev.cosign.simplesigning.v1+json', {});
    const inner = fixture.addBlob(INDEX, { manifests: [withPlatform(wanted, server2025), attestation] });
    const outer = fixture.addBlob(INDEX, { manifests: [inner, inner, artifact, signature] });
    fixture.writeIndex([outer]);
    const [offer, ...others] = await (await fixture.open()).list(never);
    expect(others).toEqual([]);
    expect(offer).toMatchObject({ digest: wanted.digest, indexes: [outer.digest, inner.digest] });
  });

  it('does not need the blobs of platforms it does not choose', async () => {
    const fixture = newFixture();
    const images = [server2022, server2025].map((platform) =>
      withPlatform(fixture.addImage(platform), platform),
    );
    fixture.writeIndex(images);
    rmSync(fixture.blobFile(images[0]!.digest));
    expect((await fixture.resolve({ host: windowsHost })).digest).toBe(images[1]!.digest);
  });

  it('says what is offered when nothing suits', async () => {
    const fixture = newFixture();
    fixture.writeIndex([server2022, server2025].map((p) => withPlatform(fixture.addImage(p), p)));
    const error = await failure(fixture.resolve({ host: { ...windowsHost, osVersion: '10.0.17763.1' } }));
    expect(error.code).toBe('not-found');
    expect(error.message).toContain('this host is windows/amd64 10.0.17763.1');
    expect(error.message).toContain('it offers windows/amd64 10.0.20348.2700, windows/amd64 10.0.26100.1742');
  });

  it('is not led astray by an index that lies about a platform', async () => {
    const fixture = newFixture();
    fixture.writeIndex([withPlatform(fixture.addImage(linux), server2025)]);
    const error = await failure(fixture.resolve({ platform: { os: 'windows' } }));
    expect(error.message).toContain('it offers linux/amd64');
    fixture.writeIndex([withPlatform(fixture.addImage(server2025), { ...server2025, osVersion: undefined })]);
    const older = { ...windowsHost, osVersion: '10.0.20348.1' };
    expect((await failure(fixture.resolve({ host: older }))).message).toContain('10.0.26100.1742');
  });

  it('warns of a later revision than the host has', async () => {
    const fixture = newFixture();
    fixture.writeIndex([fixture.addImage(server2025)]);
    const { warnings } = await fixture.resolve({ host: { ...windowsHost, osVersion: '10.0.26100.1' } });
    expect(warnings).toHaveLength(1);
  });

  it('refuses to guess between images that suit equally', async () => {
    const fixture = newFixture();
    const images = ['a', 'b'].map((comment) => fixture.addImage(linux, { config: { comment } }));
    fixture.writeIndex(images);
    const error = await failure(fixture.resolve());
    expect(digestsIn(error.message)).toEqual(expect.arrayContaining(images.map(({ digest }) => digest)));
  });
});

describe('tags', () => {
  it('name one of several images, and without one the choice is refused', async () => {
    const fixture = newFixture();
    const one = fixture.addImage(linux);
    const two = fixture.addImage(server2025);
    fixture.writeIndex([withRef(one, 'one'), withRef(two, 'v2.0:rc')]);
    expect((await fixture.resolve({}, ':one')).digest).toBe(one.digest);
    expect((await fixture.resolve({}, ':v2.0:rc')).digest).toBe(two.digest);
    expect((await fixture.resolve({}, `@${two.digest}`)).digest).toBe(two.digest);
    expect((await failure(fixture.resolve())).hint).toContain('it has one, v2.0:rc');
    expect((await failure(fixture.resolve({}, ':three'))).hint).toContain('it has one, v2.0:rc');
  });

  it('may have several platforms in index.json itself', async () => {
    const fixture = newFixture();
    const images = [linux, server2025].map((p) => withRef(withPlatform(fixture.addImage(p), p), 'app'));
    fixture.writeIndex(images);
    expect((await fixture.resolve({ platform: { os: 'windows' } })).digest).toBe(images[1]!.digest);
  });

  it('may stand for the same image', async () => {
    const fixture = newFixture();
    const image = fixture.addImage(linux);
    fixture.writeIndex([withRef(image, 'a'), withRef(image, 'b')]);
    expect((await fixture.resolve()).digest).toBe(image.digest);
  });

  it('are not looked for when a file has the whole as its name', async () => {
    const fixture = new OciFixture(join(makeTemporaryDirectory(), 'layout:one'));
    const image = fixture.addImage(linux);
    fixture.writeIndex([image]);
    expect((await fixture.resolve()).digest).toBe(image.digest);
  });

  it('of a path that is not there are no riddle', async () => {
    const error = await failure(
      openImageSource({ ociLayout: 'nowhere:tag' }, makeTemporaryDirectory(), never),
    );
    expect(error.code).toBe('not-found');
    expect(error.message).toContain('nowhere:tag: there is no such file');
  });
});

describe('a pin', () => {
  it('may name the manifest or an index above it', async () => {
    const fixture = newFixture();
    const image = fixture.addImage(linux);
    const index = fixture.addBlob(INDEX, { manifests: [image] });
    fixture.writeIndex([index]);
    expect((await fixture.resolve({ digest: image.digest })).digest).toBe(image.digest);
    expect((await fixture.resolve({ digest: index.digest })).digest).toBe(image.digest);
  });

  it('that the source moved away from names both digests', async () => {
    const fixture = newFixture();
    const image = fixture.addImage(linux);
    fixture.writeIndex([image]);
    const pin = sha256(Buffer.from('the image of yesterday'));
    const error = await failure(fixture.resolve({ digest: pin }));
    expect(error.code).toBe('not-found');
    expect(digestsIn(error.message)).toEqual([pin, image.digest]);
  });
});

describe('layers', () => {
  it.each([
    'application/vnd.oci.image.layer.v1.tar',
    'application/vnd.oci.image.layer.v1.tar+zstd',
    'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip',
    'application/vnd.docker.image.rootfs.diff.tar.gzip',
    'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
  ])('of type %s are taken', async (mediaType) => {
    const fixture = newFixture();
    const { diffId, ...layer } = fixture.addLayer('content', mediaType);
    const config = { rootfs: { diff_ids: [diffId] } };
    fixture.writeIndex([fixture.addImage(linux, { config, layers: [layer] })]);
    expect((await fixture.resolve()).layers).toEqual([
      { diffId, blob: expect.objectContaining({ mediaType }) },
    ]);
  });

  it.each([
    ['application/vnd.oci.image.layer.v1.tar+gzip+encrypted', 'is encrypted'],
    ['application/wasm', "doesn't know: application/wasm"],
    ['', "doesn't know: none"],
  ])('of type "%s" are refused', async (mediaType, expected) => {
    const fixture = newFixture();
    const { diffId, ...layer } = fixture.addLayer('content', mediaType);
    const config = { rootfs: { diff_ids: [diffId] } };
    fixture.writeIndex([fixture.addImage(linux, { config, layers: [layer] })]);
    const error = await failure(fixture.resolve());
    expect(error.code).toBe('unsupported-host');
    expect(error.message).toContain(expected);
  });

  it('must be as many as the configuration has diff IDs', async () => {
    const fixture = newFixture();
    fixture.writeIndex([fixture.addImage(linux, { config: { rootfs: { diff_ids: [] } } })]);
    expect((await failure(fixture.resolve())).message).toContain(
      '1 layers, but its configuration has 0 diff IDs',
    );
  });

  it('that are distributed apart say from where', async () => {
    const fixture = newFixture();
    const { diffId, ...layer } = fixture.addLayer(
      'x',
      'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
    );
    const layers = [{ ...layer, urls: ['https://example.com/base'] }];
    fixture.writeIndex([fixture.addImage(linux, { config: { rootfs: { diff_ids: [diffId] } }, layers })]);
    rmSync(fixture.blobFile(layer.digest));
    const error = await failure(fixture.resolve());
    expect(error.hint).toContain('https://example.com/base');
  });
});

describe('damage', () => {
  function image() {
    const fixture = newFixture();
    const { diffId, ...layer } = fixture.addLayer('content');
    const config = fixture.addBlob(CONFIG, { ...linux, rootfs: { diff_ids: [diffId] } });
    const manifest = fixture.addBlob(MANIFEST, { config, layers: [layer] });
    const index = fixture.addBlob(INDEX, { manifests: [manifest] });
    fixture.writeIndex([index]);
    return { fixture, blobs: { layer, config, manifest, index } };
  }

  it.each(['layer', 'config', 'manifest', 'index'] as const)('a missing %s is named', async (name) => {
    const { fixture, blobs } = image();
    rmSync(fixture.blobFile(blobs[name].digest));
    const error = await failure(fixture.resolve());
    expect(error.code).toBe('not-found');
    expect(error.message).toContain(`missing blob ${blobs[name].digest}`);
    expect(error.message).toContain(fixture.directory);
  });

  it.each(['layer', 'config', 'manifest', 'index'] as const)(
    'a %s cut off or grown is seen by its size',
    async (name) => {
      const { fixture, blobs } = image();
      const { digest, size } = blobs[name];
      appendFileSync(fixture.blobFile(digest), 'x');
      expect((await failure(fixture.resolve())).message).toContain(
        `has ${size + 1} bytes, declared are ${size}`,
      );
      truncateSync(fixture.blobFile(digest), 10);
      expect((await failure(fixture.resolve())).message).toContain(`has 10 bytes, declared are ${size}`);
    },
  );

  it.each(['config', 'manifest', 'index'] as const)(
    'any bit flipped in a %s is seen by its digest',
    async (name) => {
      const { fixture, blobs } = image();
      const file = fixture.blobFile(blobs[name].digest);
      const bytes = readFileSync(file);
      for (let bit = 0; bit < bytes.length * 8; bit += 37) {
        const flipped = Buffer.from(bytes);
        flipped[bit >> 3]! ^= 1 << (bit & 7);
        writeFileSync(file, flipped);
        const error = await failure(fixture.resolve());
        expect(error.code).toBe('corrupt');
        expect(digestsIn(error.message)).toEqual([blobs[name].digest, sha256(flipped)]);
      }
    },
  );

  it.each([
    ['oci-layout', 'has no file oci-layout'],
    ['index.json', 'has no file index.json'],
  ])('a directory without %s is no layout', async (file, expected) => {
    const { fixture } = image();
    rmSync(join(fixture.directory, file));
    const error = await failure(fixture.resolve());
    expect(error.code).toBe('not-found');
    expect(error.message).toContain(expected);
  });

  it('an index.json that is no JSON is pointed at', async () => {
    const { fixture } = image();
    fixture.write('index.json', Buffer.from('{"manifests": [\n  oops]}'));
    expect((await failure(fixture.resolve())).message).toContain('index.json:2:3: not valid JSON');
  });

  it('an index.json of more than 4 MiB is refused unread', async () => {
    const { fixture } = image();
    truncateSync(join(fixture.directory, 'index.json'), (4 << 20) + 1);
    expect((await failure(fixture.resolve())).message).toContain('more than the 4194304 a document may have');
  });

  it('an index of nothing holds no image', async () => {
    const { fixture } = image();
    fixture.writeIndex([]);
    expect((await failure(fixture.resolve())).message).toContain('holds no container image');
  });

  it('random documents never fail with anything but one clear error', async () => {
    const { fixture, blobs } = image();
    const { index, manifest, config } = blobs;
    const junk = fc.oneof(fc.jsonValue(), fc.constantFrom<unknown>(index, manifest, config, { ...linux }));
    const document = fc.dictionary(
      fc.constantFrom('manifests', 'layers', 'config', 'rootfs', 'os', 'architecture', 'schemaVersion'),
      fc.oneof(junk, fc.array(junk, { maxLength: 3 })),
    );
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(INDEX, MANIFEST), document, async (mediaType, content) => {
        fixture.writeIndex([fixture.addBlob(mediaType, content)]);
        const outcome = await fixture.resolve().catch((error: unknown) => error);
        expect(outcome instanceof Error).toBe(outcome instanceof CimletError);
      }),
    );
  });
});

describe('hostile layouts', () => {
  it('a digest that is a path never becomes one', async () => {
    const fixture = newFixture();
    const image = fixture.addImage(linux);
    fixture.writeIndex([{ ...image, digest: 'sha256:../../../etc/passwd' }]);
    expect((await failure(fixture.resolve())).message).toContain('manifests[0].digest is not');
  });

  it('a blob that links out of the layout is refused', async () => {
    const fixture = newFixture();
    const outside = join(fixture.directory, '../secret');
    const image = fixture.addImage(linux);
    writeFileSync(outside, readFileSync(fixture.blobFile(image.digest)));
    rmSync(fixture.blobFile(image.digest));
    symlinkSync(outside, fixture.blobFile(image.digest));
    fixture.writeIndex([image]);
    const error = await failure(fixture.resolve());
    expect(error.code).toBe('access-denied');
    expect(error.message).toContain('leads outside');
  });

  it('a blob that links within the layout is fine', async () => {
    const fixture = newFixture();
    const image = fixture.addImage(linux);
    const bytes = readFileSync(fixture.blobFile(image.digest));
    fixture.write('elsewhere', bytes);
    rmSync(fixture.blobFile(image.digest));
    symlinkSync('../../elsewhere', fixture.blobFile(image.digest));
    fixture.writeIndex([image]);
    expect((await fixture.resolve()).digest).toBe(image.digest);
  });

  it('directories and pipes are no blobs', async () => {
    const fixture = newFixture();
    const image = fixture.addImage(linux);
    const file = fixture.blobFile(image.digest);
    fixture.writeIndex([image]);
    rmSync(file);
    mkdirSync(file);
    expect((await failure(fixture.resolve())).message).toContain('missing blob');
    rmSync(file, { recursive: true });
    execFileSync('mkfifo', [file]);
    expect((await failure(fixture.resolve())).message).toContain('missing blob');
  });

  it('indexes that name one another many times over are each read once', async () => {
    const fixture = newFixture();
    let inner = fixture.addImage(linux);
    for (let level = 0; level < 30; level++) {
      inner = fixture.addBlob(INDEX, { level, manifests: Array.from({ length: 50 }, () => inner) });
    }
    fixture.writeIndex([inner]);
    expect((await fixture.resolve()).platform.os).toBe('linux');
  });

  it('aborting is `cancelled`', async () => {
    const fixture = newFixture();
    fixture.writeIndex([fixture.addImage(linux)]);
    const source = await fixture.open();
    expect((await failure(resolveImage(source, anyHost, AbortSignal.abort()))).code).toBe('cancelled');
  });
});
