/** `cimlet cim` on containers, in files and on block devices: addresses, root hashes, damage. */

import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createBlockCimWriter } from '../../src/cim/block-writer.ts';
import type { ContainerPlace } from '../../src/cim/container-target.ts';
import type { CimDescription } from '../../src/cim/inspect.ts';
import { mergeBlockCims } from '../../src/cim/merge.ts';
import { publishContainer } from '../../src/cim/publish.ts';
import { sealContainer } from '../../src/cim/seal.ts';
import { containerOf, finishBlock, guidOf, writeBlock } from '../cim/block-fixture.ts';
import { patternBytes, putFile } from '../cim/fixture.ts';
import { hasTool, isRoot, requireOrSkip } from '../support/requirements.ts';
import { runCimlet } from './run-cimlet.ts';

const LARGE = patternBytes(40_000, 1);
const ROOT_HASH = /^sha256:[0-9a-f]{64}$/;

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'cimlet-cim-containers-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const run = (...args: string[]) => runCimlet(['cim', ...args], { cwd: directory });

async function inspect(...args: string[]): Promise<NonNullable<CimDescription['container']>> {
  const { code, stdout, stderr } = await run('inspect', ...args, '-o', 'json');
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const { container } = JSON.parse(stdout) as CimDescription;
  return container!;
}

async function sealedLayer(n: number): Promise<{ file: string; rootHash: string }> {
  const file = containerOf(
    writeBlock(directory, n, (writer) => {
      putFile(writer, 'large', LARGE);
      putFile(writer, `small-${n}`, 'small');
    }),
  );
  return { file, ...(await sealContainer(file)) };
}

/** Changes a bit of the large file's content. */
function damage(path: string): void {
  const at = readFileSync(path).indexOf(LARGE) + 30_000;
  const descriptor = openSync(path, 'r+');
  try {
    writeSync(descriptor, Buffer.from([LARGE[30_000]! ^ 1]), 0, 1, at);
  } finally {
    closeSync(descriptor);
  }
}

describe('a root hash', () => {
  test('is spelled sha256:... wherever it is printed, and taken as it is printed', async () => {
    const { file, rootHash } = await sealedLayer(1);
    expect(rootHash).toMatch(ROOT_HASH);
    expect((await inspect(file)).rootHash).toBe(rootHash);
    expect(await run('ls', file, '--root-hash', rootHash)).toMatchObject({ code: 0, stderr: '' });
    expect((await run('verify', file, '--root-hash', rootHash)).code).toBe(0);

    const second = await sealedLayer(2);
    const merged = join(directory, 'merged.bcim');
    const sources = [second.file, file];
    mergeBlockCims({ file: merged, name: 'merged', regionGuid: guidOf(9), sources });
    publishContainer(merged);
    const listed = await inspect(merged, ...sources.flatMap((source) => ['--source', source]));
    expect(listed.sources?.map(({ digest }) => digest)).toEqual([second.rootHash, rootHash]);
  });

  test('is refused when it is another, and when it is none', async () => {
    const { file, rootHash } = await sealedLayer(3);
    const other = `sha256:${'0'.repeat(64)}`;
    for (const command of ['ls', 'verify']) {
      const { code, stdout, stderr } = await run(command, file, '--root-hash', other);
      expect({ code, text: stdout + stderr }).toEqual({ code: 1, text: expect.stringContaining(rootHash) });
    }
    for (const wrong of [rootHash.slice(7), rootHash.toUpperCase(), 'sha256:12', `${rootHash}0`]) {
      const { code, stderr } = await run('ls', file, '--root-hash', wrong);
      expect(code).toBe(1);
      expect(stderr).toContain('A root hash is sha256: and 64 hexadecimal digits in lower case.');
    }
  });
});

test('a broken seal stops cat before the damage, says where, and what to do', async () => {
  const { file } = await sealedLayer(4);
  damage(file);
  const { code, stdout, stderr } = await run('cat', file, 'large');
  expect(code).toBe(1);
  expect(LARGE.toString('latin1').startsWith(stdout) || stdout === '').toBe(true);
  expect(stderr).toMatch(/^error: read CIM: \S+: offset 0x\w+: the seal is broken: /);
  expect(stderr).toContain(`hint: cimlet cim verify ${file} lists all that is damaged`);
  const verified = await run('verify', file);
  expect(verified.code).toBe(1);
  expect(verified.stdout).toContain('the seal is broken');
});

test('verify says how many faults it shows, and how many more there are', async () => {
  const FILES = 130;
  const contents = Array.from({ length: FILES }, (_, n) => patternBytes(5000, n + 1));
  const file = containerOf(
    writeBlock(directory, 7, (writer) => {
      for (const [n, content] of contents.entries()) putFile(writer, `file-${n}`, content);
    }),
  );
  const bytes = readFileSync(file);
  for (const content of contents) bytes.writeUInt8(content[0]! ^ 1, bytes.indexOf(content));
  writeFileSync(file, bytes);
  const { code, stdout, stderr } = await run('verify', file);
  expect(code).toBe(1);
  expect(stderr).toMatch(/^100 faults shown, \d+ more\n$/);
  const more = Number(/, (\d+) more/.exec(stderr)?.[1]);
  expect(more).toBeGreaterThanOrEqual(FILES - 100);
  const lines = stdout.trimEnd().split('\n');
  expect(lines).toHaveLength(101);
  expect(lines[100]).toContain(`${more} more faults up to here`);
});

describe.runIf(requireOrSkip('root and losetup', isRoot && hasTool('losetup')))('a block device', () => {
  test('is looked into, verified by its root hash, and refused when it is damaged', async () => {
    const image = join(directory, 'disk');
    writeFileSync(image, Buffer.alloc(4 * 1024 * 1024, 0xaa));
    const device = execFileSync('losetup', ['-f', '--show', image], { encoding: 'utf8' }).trim();
    try {
      const put = (place: ContainerPlace & { append?: boolean }, name: string, n: number) =>
        finishBlock(createBlockCimWriter({ ...place, name, regionGuid: guidOf(n) }), (writer) =>
          putFile(writer, 'large', LARGE),
        );
      put({ device }, 'base', 5);
      expect((await run('ls', device)).stdout).toBe('large\n');
      put({ device, append: true }, 'app', 6);
      const { rootHash } = await sealContainer(device);
      expect(await inspect(`${device}/app.cim`)).toMatchObject({
        kind: 'device',
        cims: ['base.cim', 'app.cim'],
        rootHash,
      });
      const ambiguous = await run('ls', device);
      expect(ambiguous.stderr).toMatch(/which of its 2 CIMs\?\nhint: .*base\.cim, app\.cim/);
      expect((await run('cat', `${device}/base.cim`, 'large')).code).toBe(0);
      expect((await run('verify', `${device}/app.cim`, '--root-hash', rootHash)).code).toBe(0);
      damage(device);
      expect((await run('verify', `${device}/base.cim`)).stdout).toContain(`${device}: offset 0x`);
      expect((await run('cat', `${device}/base.cim`, 'large')).stderr).toContain('the seal is broken');
    } finally {
      execFileSync('losetup', ['-d', device]);
    }
  });
});
