/** `cimlet vhd`, run as people run it. */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { tarOf } from '../tar/tar-helpers.ts';
import { runCimlet } from './run-cimlet.ts';

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
    'no size such as',
  );
  const small = await runCimlet(['vhd', 'create', tar, '-o', join(directory, 's.vhd'), '--max-size', '8Ki']);
  expect(small).toMatchObject({ code: 1, stderr: expect.stringContaining('--max-size') });
});
