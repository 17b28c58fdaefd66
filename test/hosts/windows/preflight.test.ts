import { mkdir, mkdtemp, realpath, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { CimletError } from '../../../src/errors.ts';
import { examineStore } from '../../../src/hosts/windows/preflight.ts';
import type { Kernel32 } from '../../../src/native/windows/kernel32.ts';

let directory: string;
beforeEach(async () => {
  directory = await realpath(await mkdtemp(join(tmpdir(), 'cimlet-preflight-')));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

/** A machine whose every volume has this file system; none: it can't be asked. */
function machine(fileSystem?: string): Kernel32 {
  const volumeInformation = async () => {
    if (fileSystem === undefined) throw new CimletError('unavailable', 'ask what volume it is: not ready');
    return { fileSystem };
  };
  return { volumeInformation } as unknown as Kernel32;
}

it('takes a root on NTFS, whether it is there or not', async () => {
  await mkdir(join(directory, 'there'));
  for (const root of ['there', 'not/there/yet'])
    expect(await examineStore(machine('NTFS'), join(directory, root))).toBeUndefined();
});

it('refuses a root behind a link, and names the link', async () => {
  await mkdir(join(directory, 'real'));
  await symlink('real', join(directory, 'link'));
  for (const root of ['link', 'link/store'])
    expect(await examineStore(machine('NTFS'), join(directory, root))).toMatchObject({
      available: false,
      reason: expect.stringContaining(`${join(directory, 'link')} is a link`),
    });
});

it.each([
  ['FAT32', /is FAT32; layers are kept on NTFS/],
  ['ReFS', /is ReFS/],
  [undefined, /not ready/],
])('refuses a volume of %s, and says why', async (fileSystem, reason) => {
  const refusal = await examineStore(machine(fileSystem), join(directory, 'store'));
  expect(refusal).toMatchObject({ available: false, hint: 'choose another --root' });
  expect(refusal?.reason).toMatch(reason);
});
