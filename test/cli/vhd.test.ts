/** `cimlet vhd`, run as people run it. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { COMPILE_CACHE, MAIN } from '../support/program.ts';
import { tarOf } from '../tar/tar-helpers.ts';
import { type RunResult, runCimlet } from './run-cimlet.ts';

let directory: string;
let vhd: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'cimlet-vhd-'));
  vhd = join(directory, 'layer.vhd');
  const tar = tarOf(
    { name: 'etc', type: 'directory', mode: 0o755, mtime: 1_000_000_000_000_000_000n },
    { name: 'etc/ü', type: 'file', content: 'content\n', mode: 0o4755, uid: 7 },
    { name: 'link', type: 'symlink', linkName: 'etc/ü' },
    { name: '.wh.gone', type: 'file' },
  );
  writeFileSync(join(directory, 'layer.tar'), tar);
});
afterAll(() => rmSync(directory, { recursive: true }));

it('makes a disk, lists it, reads it, verifies it, and finds damage', async () => {
  const tar = join(directory, 'layer.tar');
  const created = await runCimlet(['vhd', 'create', tar, '-o', vhd, '--verity', '--max-size', '1Gi']);
  expect(created).toMatchObject({ code: 0, stderr: '' });
  const [, rootHash = ''] = /^Root hash: ([0-9a-f]{64})$/m.exec(created.stdout) ?? [];
  expect(created.stdout).toContain(`Wrote ${vhd}: 6 inodes, `);

  const long = await runCimlet(['vhd', 'ls', '-lR', vhd]);
  expect(long.stdout.split('\n').map((line) => line.replace(/ +/g, ' '))).toEqual([
    'drwxr-xr-x 2 0 0 4096 2001-09-09T01:46:40Z etc/',
    'c--------- 1 0 0 0,0 1970-01-01T00:00:00Z gone',
    'lrwxrwxrwx 1 0 0 6 1970-01-01T00:00:00Z link -> etc/ü',
    'drwx------ 2 0 0 4096 1970-01-01T00:00:00Z lost+found/',
    '-rwsr-xr-x 1 7 0 8 1970-01-01T00:00:00Z etc/ü',
    '',
  ]);
  const data = await runCimlet(['vhd', 'ls', vhd, 'etc', '-o', 'json']);
  expect(JSON.parse(data.stdout)).toEqual([
    expect.objectContaining({ name: 'ü', type: 'file', mode: '4755', uid: 7, size: 8, xattrs: {} }),
  ]);
  expect((await runCimlet(['vhd', 'cat', vhd, '/link'])).stdout).toBe('content\n');
  expect(await runCimlet(['vhd', 'cat', vhd, 'etc'])).toMatchObject({ code: 1 });
  expect((await runCimlet(['vhd', 'cat', vhd, 'nothing'])).stderr).toContain('holds no nothing');

  const verified = await runCimlet(['vhd', 'verify', vhd, '--root-hash', rootHash]);
  expect(verified).toMatchObject({ code: 0, stdout: expect.stringContaining('no faults') });
  const bytes = readFileSync(vhd);
  bytes[8192]! ^= 1;
  writeFileSync(vhd, bytes);
  expect(await runCimlet(['vhd', 'verify', vhd])).toMatchObject({
    code: 1,
    stdout: `${vhd}: offset 0x2000: a block does not have its digest in the dm-verity tree\n`,
    stderr: '1 fault\n',
  });
});

it('says what is missing or impossible', async () => {
  const tar = join(directory, 'layer.tar');
  expect((await runCimlet(['vhd', 'create', tar])).stderr).toContain('no file named');
  expect((await runCimlet(['vhd', 'create', tar, '-o', vhd, '--max-size', 'much'])).stderr).toContain(
    'Name a size such as',
  );
  const small = await runCimlet(['vhd', 'create', tar, '-o', join(directory, 's.vhd'), '--max-size', '8Ki']);
  expect(small).toMatchObject({ code: 1, stderr: expect.stringContaining('--max-size') });
});

describe.runIf(process.platform === 'linux')('on a signal', () => {
  /** Starts it, sends the signal as soon as it has a file open that is below the directory, and gives its end. */
  async function interrupted(signal: NodeJS.Signals, ...args: string[]): Promise<RunResult> {
    const child = spawn(process.execPath, [MAIN, ...args], {
      env: { ...process.env, NODE_COMPILE_CACHE: COMPILE_CACHE, NO_COLOR: '1' },
    });
    const result: RunResult = { code: null, stdout: '', stderr: '' };
    child.stdout.on('data', (text) => (result.stdout += text));
    child.stderr.on('data', (text) => (result.stderr += text));
    const ended = once(child, 'close');
    const descriptors = `/proc/${child.pid}/fd`;
    await vi.waitFor(
      () => {
        const open = readdirSync(descriptors).map((name) => readlinkSync(join(descriptors, name)));
        expect(open.some((path) => path.startsWith(directory))).toBe(true);
      },
      { timeout: 30_000 },
    );
    child.kill(signal);
    const [code] = await ended;
    return { ...result, code };
  }

  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('verify stops, and says so to shells: %s', async (signal, code) => {
    const image = join(directory, 'large.img');
    const tar = join(directory, 'layer.tar');
    await runCimlet(['vhd', 'create', tar, '-o', image, '--verity']);
    enlarge(image, 2 ** 23);
    expect(await interrupted(signal, 'vhd', 'verify', image)).toMatchObject({ code, stdout: '' });
  });

  it('create stops, and leaves nothing', async () => {
    const tar = join(directory, 'large.tar');
    writeFileSync(tar, tarOf({ name: 'f', type: 'file', content: '' }));
    const header = readFileSync(tar);
    header.write((2 ** 33 - 1).toString(8), 124);
    header.fill(' ', 148, 156);
    const sum = header.subarray(0, 512).reduce((total, byte) => total + byte, 0);
    header.write(`${sum.toString(8).padStart(6, '0')}\0`, 148);
    writeFileSync(tar, header);
    truncateSync(tar, 2 ** 33 + 2048);
    const before = readdirSync(directory);
    const result = await interrupted('SIGINT', 'vhd', 'create', tar, '-o', join(directory, 'never.vhd'));
    expect(result).toMatchObject({ code: 130, stdout: '' });
    expect(readdirSync(directory)).toEqual(before);
  });
});

/** Has a small image say that it has so many blocks, all covered by dm-verity, none of which has its digest: it takes long to verify. */
function enlarge(image: string, blocks: number): void {
  const size = blocks * 4096;
  const bytes = readFileSync(image);
  const found = bytes.indexOf('verity\0\0');
  const superblock = bytes.subarray(found, found + 512);
  superblock.writeBigUInt64LE(BigInt(blocks), 72);
  const file = openSync(image, 'r+');
  try {
    const count = Buffer.alloc(4);
    count.writeUInt32LE(blocks);
    writeSync(file, count, 0, 4, 1024 + 4);
    ftruncateSync(file, Math.ceil(blocks * 1.02) * 4096);
    writeSync(file, superblock, 0, superblock.length, size);
  } finally {
    closeSync(file);
  }
}
