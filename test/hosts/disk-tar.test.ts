/** What is read from the disk of a Linux scratch that a guest has let go of: mke2fs makes the disks, tar lists what came of them. */

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { writeScratchTar } from '../../src/hosts/disk-tar.ts';
import { hasTool, requireOrSkip } from '../support/requirements.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cimlet-disk-tar-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

const ignore = () => undefined;
const control = { signal: new AbortController().signal, checkpoint: ignore, progress: ignore };

const JOB = { kind: 'export-scratch', owner: 'a', bytes: 0 } as const;

/** Names in the tar of what the snapshot called `place` wrote to a disk with these files. */
async function exported(files: string[], { place = 'a', isShared = false } = {}): Promise<string[]> {
  const [tree, disk, file] = ['tree', 'disk', 'file.tar'].map((name) => join(directory, name)) as [
    string,
    string,
    string,
  ];
  mkdirSync(tree);
  for (const name of files) {
    mkdirSync(dirname(join(tree, name)), { recursive: true });
    writeFileSync(join(tree, name), name);
  }
  execFileSync('mke2fs', ['-q', '-t', 'ext4', '-d', tree, disk, '8M'], { stdio: 'pipe' });
  await writeScratchTar({ ...JOB, disk, place, isShared, file, temporary: `${file}.part` }, control);
  return execFileSync('tar', ['-tf', file], { encoding: 'utf8' }).trimEnd().split('\n').filter(Boolean);
}

describe.runIf(requireOrSkip('mke2fs', hasTool('mke2fs')))('what a snapshot wrote to a disk is', () => {
  it('unknown, until something has formatted it', async () => {
    const [disk, file] = [join(directory, 'disk'), join(directory, 'file.tar')];
    writeFileSync(disk, Buffer.alloc(2 ** 20));
    const job = { ...JOB, disk, place: 'a', isShared: false, file, temporary: `${file}.part` };
    await expect(writeScratchTar(job, control)).rejects.toMatchObject({
      code: 'failed-precondition',
      hint: expect.stringContaining('utility VM'),
    });
  });

  it('nothing, on an empty one', async () => {
    expect(await exported([])).toEqual([]);
  });

  it('nothing, where only others of its disk wrote', async () => {
    expect(await exported(['scratch/a.b/upper/x'], { isShared: true })).toEqual([]);
  });

  it('its own part, beside those of others, also of such that are gone', async () => {
    expect(await exported(['scratch/a/upper/own', 'scratch/a.gone/upper/x'])).toEqual(['./', 'own']);
  });

  it('its part of the disk of another', async () => {
    const files = ['scratch/a/upper/x', 'scratch/a.b/upper/own'];
    expect(await exported(files, { place: 'a.b', isShared: true })).toEqual(['./', 'own']);
  });

  it('the only part there is, whatever it is called: other runtimes name it after a container', async () => {
    expect(await exported(['scratch/container/upper/own'])).toEqual(['./', 'own']);
  });

  it.each([
    ['two containers', ['scratch/one/upper/x', 'scratch/two/upper/x'], {}],
    ['itself and a container', ['scratch/a/upper/x', 'scratch/one/upper/x'], {}],
    ['another part of it and a container', ['scratch/one/upper/x'], { isShared: true }],
    ['a container, on the disk of another', ['scratch/one/upper/x'], { place: 'a.b', isShared: true }],
    ['a container that has no upper directory', ['scratch/one/x'], {}],
    ['a guest that lays disks out in another way', ['upper/x'], {}],
  ])('refused, when it was written by %s', async (_, files, options) => {
    await expect(exported(files, options)).rejects.toMatchObject({
      code: 'failed-precondition',
      message: expect.stringMatching(/one|upper/),
      hint: expect.stringContaining('cimlet vhd ls'),
    });
  });
});
