/** Hostile images, through the real program: one clear error each, nothing committed, nothing touched outside the root. */

import { randomBytes } from 'node:crypto';
import { appendFileSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { checksum } from '../../src/tar/tar-block.ts';
import { BLOCK, Field } from '../../src/tar/tar-format.ts';
import { type LayerItem, layerItems } from '../support/host-layers.ts';
import { LAYER, OciFixture, withPlatform } from '../support/oci-fixture.ts';
import type { ProgramResult } from '../support/program.ts';
import { sha256 } from '../support/stored-blob.ts';
import { BASE, fingerprint, flip, onlyError, PATCH, tarOf, WINDOWS, World, writeTar } from './world.ts';

const FILES: LayerItem = { name: 'Files/', type: 'directory', mtime: 0n };

function file(name: string, text = 'x'): LayerItem {
  return { name, type: 'file', content: Buffer.from(text), mtime: 0n };
}

function link(type: 'hard-link' | 'symlink', linkName: string): LayerItem {
  return { name: 'Files/link', type, linkName, mtime: 0n };
}

/** Changes a field of the header block at `offset`, and makes the checksum right again. */
function patchHeader(tar: Buffer, offset: number, field: keyof typeof Field, text: string): Buffer {
  tar.write(text, offset + Field[field][0], 'latin1');
  const sum = checksum(tar, offset).unsigned.toString(8).padStart(6, '0');
  tar.write(`${sum}\0 `, offset + Field.checksum[0], 'latin1');
  return tar;
}

/** One layer that can't be unpacked, and what the error says. In plain tars, `Files/` is at 0, what follows at 512. */
const LAYERS: [string, (world: World) => LayerItem[] | Buffer, RegExp][] = [
  [
    'an absolute path',
    (world) => [FILES, file(world.path('beside/victim'))],
    /tar entry "\/.*\/beside\/victim" at offset 512: the path is absolute/,
  ],
  [
    "a path with '..'",
    () => [FILES, file('Files/../../../beside/victim')],
    /tar entry "Files\/\.\.\/\.\.\/\.\.\/beside\/victim" at offset 512: the path has a '\.\.' component/,
  ],
  [
    'a hard link to an absolute path',
    (world) => [FILES, link('hard-link', world.path('beside/victim'))],
    /tar entry "Files\/link" at offset 512: hard link to ".*victim": the path is absolute/,
  ],
  [
    "a hard link with '..'",
    () => [FILES, link('hard-link', 'Files/../../../beside/victim')],
    /tar entry "Files\/link" at offset 512: hard link to ".*victim": the path has a '\.\.' component/,
  ],
  [
    'a hard link to nothing',
    () => [FILES, link('hard-link', 'Files/nowhere')],
    /tar entry "Files\/link" at offset 512: .*no such file in this layer or below/,
  ],
  [
    'a file written through a symlink that leads out of the root',
    (world) => [FILES, link('symlink', world.path('beside')), file('Files/link/victim')],
    /tar entry "Files\/link\/victim" at offset 1024: "Files\/link" is a symlink/,
  ],
  [
    'a named pipe',
    () => [FILES, { name: 'Files/pipe', type: 'fifo', mtime: 0n }],
    /"Files\/pipe" at offset 512: a named pipe/,
  ],
  [
    'a block device',
    () => [{ name: 'Files/sda', type: 'block-device' }],
    /"Files\/sda" at offset 0: a block device/,
  ],
  [
    'a character device',
    () => [{ name: 'Files/null', type: 'character-device', mtime: 0n }],
    /"Files\/null" at offset 0: a character device/,
  ],
  [
    'two names that differ only in case',
    () => [FILES, file('Files/Readme'), file('Files/README')],
    /"Files\/README" at offset 1536: case collision: "Files\/Readme" and "Files\/README" are one name on Windows/,
  ],
  [
    'two directories that differ only in case',
    () => [FILES, file('Files/bin/a'), file('Files/BIN/b')],
    /"Files\/BIN\/b" at offset 1536: case collision: "Files\/bin" and "Files\/BIN"/,
  ],
  [
    'a reserved name',
    () => [FILES, file('Files/nul.txt')],
    /"nul\.txt" is a reserved device name on Windows/,
  ],
  [
    'a reserved directory',
    () => [FILES, file('Files/COM1/x')],
    /"COM1" is a reserved device name on Windows/,
  ],
  ['a name Windows would cut', () => [FILES, file('Files/dot.')], /ends with a dot or a space/],
  [
    'a name with a control character',
    () => [FILES, file('Files/a\u0007')],
    /Windows allows no "\\u0007" in names/,
  ],
  [
    'the files of a Linux image under a Windows label',
    () => [file('etc/passwd')],
    /"etc\/passwd" at offset 0: a Windows layer holds only Files\//,
  ],
  [
    'a tar cut off in a file',
    () => tarOf([FILES, file('Files/a', 'a'.repeat(3000))]).subarray(0, 2000),
    /tar ends at offset 2000 inside the data of "Files\/a" .*truncated/,
  ],
  [
    'a declared size larger than the layer',
    () =>
      writeTar((tar) => {
        tar.entry({ name: 'Files/', type: 'directory' });
        tar.entry({ name: 'Files/a', type: 'file', size: 8_000_000_000 });
        tar.data(Buffer.alloc(1000));
      }),
    /inside the data of "Files\/a" \(entry at offset 512, 7999999000 bytes missing\)/,
  ],
  [
    'a declared size smaller than the file',
    () => patchHeader(tarOf([FILES, file('Files/a', 'a'.repeat(1000))]), BLOCK, 'size', '00000000002'),
    /tar header at offset 1536: wrong checksum/,
  ],
  [
    'an extended header that declares gigabytes',
    () =>
      patchHeader(
        patchHeader(tarOf([FILES, file('Files/a')]), BLOCK, 'typeFlag', 'x'),
        BLOCK,
        'size',
        '77777777777',
      ),
    /at offset 512: extended header of 8589934591 bytes; at most 1048576 are accepted/,
  ],
  [
    'a size that is no number',
    () => patchHeader(tarOf([FILES, file('Files/a')]), BLOCK, 'size', 'all of it!!'),
    /"Files\/a" at offset 512: .*size/,
  ],
  [
    'a flipped bit in a header',
    () => {
      const tar = tarOf([FILES, file('Files/a')]);
      tar.writeUInt8(tar.readUInt8(BLOCK + 2) ^ 1, BLOCK + 2);
      return tar;
    },
    /tar header at offset 512: wrong checksum/,
  ],
  [
    'a malformed security descriptor',
    () => [FILES, { ...file('Files/a'), records: { 'MSWINDOWS.rawsd': 'AAAA' } }],
    /"Files\/a" at offset 512: malformed security descriptor/,
  ],
];

/** All of them in one run: each fails by itself, with an error of its own. */
describe('a layer with', () => {
  const cleanUps: (() => void)[] = [];
  const layers: { digest: string; file: string }[] = [];
  let result: ProgramResult;

  beforeAll(async () => {
    const world = new World((cleanUp) => cleanUps.push(cleanUp));
    const texts: string[] = [];
    for (const [index, [, layer]] of LAYERS.entries()) {
      const name = `app${index}`;
      const written = await world.image(name, [layer(world)]);
      const digest = written.layers[0]?.digest ?? '';
      layers.push({ digest, file: world.blobFile(digest, name) });
      const text = world.appText({ image: name, path: world.path(name) });
      texts.push(text.replaceAll(/name: app\b|image: app\b|chain: app\b/g, (found) => `${found}${index}`));
    }
    world.write('manifests/app.yaml', texts.join('---\n'));
    const before = world.surroundings();
    result = await world.apply(1);
    expect(await world.observe()).toMatchObject({ layers: [], mounts: [], leftovers: [] });
    expect(world.surroundings()).toEqual(before);
  });

  afterAll(() => {
    for (const cleanUp of cleanUps) cleanUp();
  });

  test.each(LAYERS.map(([name, , message], index) => [name, message, index] as const))(
    '%s',
    (_name, message, index) => {
      const { digest, file } = layers[index]!;
      const lines = result.stderr.split('\n');
      const mine = lines.filter((line) => line.startsWith('error: ') && line.includes(digest));
      expect(mine).toHaveLength(1);
      expect(mine[0]).toMatch(message);
      expect(mine[0]).toContain(`unpack layer ${digest} from ${file}: `);
      expect(lines[lines.indexOf(mine[0] ?? '') + 1]).toMatch(/^hint: .*(image|damaged)/);
    },
  );

  test('nothing else went wrong', () => {
    expect(result.stdout).toMatch(
      `${LAYERS.length} succeeded, ${LAYERS.length} failed, ${2 * LAYERS.length} skipped`,
    );
    expect(result.stderr.match(/^error: /gm)).toHaveLength(LAYERS.length);
    expect(result.stderr).not.toMatch(/bug in cimlet|^\s+at /m);
  });
});

async function expectNothingThere(world: World): Promise<void> {
  const { layers, mounts, leftovers, paths } = await world.observe();
  expect({ layers, mounts, leftovers, paths }).toEqual({
    layers: [],
    mounts: [],
    leftovers: [],
    paths: { [world.mountPoint]: { kind: 'absent' } },
  });
}

describe('odd, but nothing that can do harm:', () => {
  test('symlinks that lead out of the root, and a whiteout below one', async () => {
    const world = new World();
    await world.image('app', [
      [FILES, link('symlink', world.path('beside')), file('Files/link/.wh.victim', '')],
      [{ ...link('symlink', '../../../../etc/passwd'), name: 'Files/other' }],
    ]);
    world.app({ view: 'Extracted' });
    const before = world.surroundings();
    await world.apply();
    expect(world.surroundings()).toEqual(before);
    await world.run(['delete', '-f', world.manifest, '--yes']);
    expect(world.surroundings()).toEqual(before);
  });

  test('a gzip bomb behind the end of the tar takes no room', async () => {
    const world = new World();
    await world.image('app', [Buffer.concat([tarOf(BASE), Buffer.alloc(300_000_000)])]);
    world.app();
    await world.apply();
    const { layers } = await world.observe();
    expect(layers).toHaveLength(1);
    expect(layers[0]?.bytes).toBeLessThan(200_000);
  });

  test('100,000 files in one directory', async () => {
    const world = new World();
    const names = Array.from({ length: 100_000 }, (_, index) => file(`Files/many/${index}`, ''));
    await world.image('app', [[FILES, ...names]]);
    world.app();
    await world.apply();
    expect(readdirSync(join(world.mountPoint, 'many'))).toHaveLength(100_000);
    expect(readFileSync(join(world.mountPoint, 'many/77777'), 'utf8')).toBe('');
  });
});

describe('a blob', () => {
  const noise = layerItems({ 'a.txt': 'a', noise: randomBytes(6000).toString('hex') });

  test.each([
    ['gzip', /(gzip data.*offset|expected digest)/],
    ['zstd', /(zstd.*offset|expected digest)/],
    ['none', /expected digest sha256:\w+, found sha256:/],
  ] as const)('with a flipped bit (%s)', async (compression, message) => {
    const world = new World();
    const { layers } = await world.image('app', [noise], { compression });
    world.app();
    const blob = world.blobFile(layers[0]?.digest ?? '');
    flip(blob);
    const before = world.surroundings();
    const { error, hint } = onlyError(await world.apply(1));
    expect(error).toMatch(message);
    expect(error).toContain(`read layer ${layers[0]?.digest} from ${blob}`);
    expect(hint).toMatch(/damaged/);
    await expectNothingThere(world);
    expect(world.surroundings()).toEqual(before);
    await world.image('app', [noise], { compression });
    await world.apply();
    await world.expectEmptyPlan();
  });

  test('that is another one of the same size', async () => {
    const world = new World();
    const { layers } = await world.image('app', [BASE], { compression: 'none' });
    const items = BASE.map((item) =>
      item.content === undefined ? item : { ...item, content: Buffer.alloc(item.content.length) },
    );
    writeFileSync(world.blobFile(layers[0]?.digest ?? ''), tarOf(items));
    world.app();
    const { error } = onlyError(await world.apply(1));
    expect(error).toMatch(new RegExp(`read layer .*: expected digest ${layers[0]?.digest}, found sha256:`));
    await expectNothingThere(world);
  });

  test('cut off inside its gzip stream, with a digest that agrees', async () => {
    const world = new World();
    const oci = new OciFixture(world.path('images/app'));
    const whole = gzipSync(tarOf(noise));
    const layer = oci.addBlob(LAYER, whole.subarray(0, whole.length - 500));
    const rootfs = { type: 'layers', diff_ids: [sha256(tarOf(noise))] };
    oci.writeIndex([withPlatform(oci.addImage(WINDOWS, { layers: [layer], config: { rootfs } }), WINDOWS)]);
    world.app();
    const { error, hint } = onlyError(await world.apply(1));
    expect(error).toMatch(/gzip data is damaged near offset \d+: unexpected end of file/);
    expect(hint).toMatch(/damaged or incomplete/);
    await expectNothingThere(world);
  });

  test('whose content has another diff ID than the configuration says', async () => {
    const world = new World();
    const oci = new OciFixture(world.path('images/app'));
    const layer = oci.addBlob(LAYER, gzipSync(tarOf(BASE)));
    const rootfs = { type: 'layers', diff_ids: [sha256(Buffer.from('something else'))] };
    oci.writeIndex([withPlatform(oci.addImage(WINDOWS, { layers: [layer], config: { rootfs } }), WINDOWS)]);
    world.app();
    const { error, hint } = onlyError(await world.apply(1));
    expect(error).toMatch(/expected diff ID sha256:\w+, found sha256:/);
    expect(hint).toMatch(/ask whoever built it/);
    await expectNothingThere(world);
  });
});

/** Found before anything is done: a resource is blocked, in `plan` and in `apply`, and what needs it as well. */
const BLOCKED: [string, (world: World) => Promise<void>, string, RegExp][] = [
  [
    'a missing layer blob',
    async (world) => {
      const { layers } = await world.image('app', [BASE, PATCH]);
      rmSync(world.blobFile(layers[1]?.digest ?? ''));
    },
    'Image/app',
    /missing blob .* \(layer 2 of .*hint: copy the image again/s,
  ],
  [
    'a layer blob shorter than declared',
    async (world) => {
      const { layers } = await world.image('app', [BASE]);
      truncateSync(world.blobFile(layers[0]?.digest ?? ''), 100);
    },
    'Image/app',
    /has 100 bytes, declared are \d+ .*hint: the blob is damaged or incomplete/s,
  ],
  [
    'a layer blob larger than declared',
    async (world) => {
      const { layers } = await world.image('app', [BASE]);
      appendFileSync(world.blobFile(layers[0]?.digest ?? ''), Buffer.alloc(1_000_000));
    },
    'Image/app',
    /has 1000\d+ bytes, declared are \d+/,
  ],
  [
    'a manifest with a flipped bit',
    async (world) => flip(world.blobFile((await world.image('app', [BASE])).digest)),
    'Image/app',
    /its bytes have digest sha256:.*hint: the blob is damaged/s,
  ],
  [
    'no image for the platform',
    async (world) => {
      await world.image('app', [BASE], { platform: { os: 'windows', architecture: 'arm64' } });
    },
    'Image/app',
    /no image for windows\/amd64.*windows\/arm64/s,
  ],
  [
    'no image at all at that path',
    async (world) => void world.write('images/other', ''),
    'Image/app',
    /images\/app.*\(not-found\)/s,
  ],
];

describe('an image with', () => {
  test.each(BLOCKED)('%s', async (_name, make, key, message) => {
    const world = new World();
    await make(world);
    world.app();
    await expectBlocked(world, key, message);
  });

  test('Linux files asked for as a CIM', async () => {
    const world = new World();
    await world.image('app', [[file('etc/passwd')]], { platform: { os: 'linux', architecture: 'amd64' } });
    world.write('manifests/app.yaml', world.appText().replace('os: windows', 'os: linux'));
    await expectBlocked(world, 'LayerChain/app', /app.*linux.*LCOW/s);
  });
});

async function expectBlocked(world: World, key: string, message: RegExp): Promise<void> {
  const before = fingerprint(world.directory);
  const plan = await world.run(['plan', '-f', world.manifest], 1, { env: { COLUMNS: '1000' } });
  expect(fingerprint(world.directory)).toEqual(before);
  const blocked = plan.stdout.slice(plan.stdout.indexOf('Blocked'));
  expect(blocked).toMatch(message);
  expect(blocked).toMatch(new RegExp(`  x  ${key}  ${world.manifest}:\\d+:\\d+\n`));
  expect(blocked).toMatch(/ {2}x {2}Mount\/app/);
  const surroundings = world.surroundings();
  const applied = await world.run(['apply', '-f', world.manifest, '--yes'], 1, { env: { COLUMNS: '1000' } });
  expect(applied.stdout).toMatch(message);
  await expectNothingThere(world);
  expect(world.surroundings()).toEqual(surroundings);
}
