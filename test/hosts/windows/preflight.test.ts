/** Roots where Windows keeps no layers. (The calls that look are Wine's in every other test of the host.) */

import { expect, it } from 'vitest';
import { CimletError } from '../../../src/errors.ts';
import { examineStore, type StoreSight } from '../../../src/hosts/windows/preflight.ts';

const CLOUD = 0x9000001a;
const MOUNT_POINT = 0xa0000003;

/** A machine with these directories, each with a reparse tag or 0, and these volumes with their file systems. */
function machine(
  directories: Record<string, number>,
  volumes: Record<string, string | undefined> = { '/': 'NTFS' },
): StoreSight {
  const volumeRoot = async (path: string) => {
    const holding = Object.keys(volumes).filter((root) => path === root || path.startsWith(root));
    return holding.sort((a, b) => b.length - a.length)[0] ?? '/';
  };
  const volumeInformation = async (root: string) => {
    const fileSystem = volumes[root];
    if (fileSystem === undefined) throw new CimletError('unavailable', 'ask what volume it is: not ready');
    return { fileSystem };
  };
  const info = (path: string) =>
    directories[path] === undefined ? undefined : { reparseTag: directories[path] };
  return { kernel32: { volumeRoot, volumeInformation }, facts: { info } } as unknown as StoreSight;
}

it('takes a root on NTFS, whether it is there or not', async () => {
  const directories = { '/': 0, '/there': 0 };
  for (const root of ['/there', '/not/there/yet'])
    expect(await examineStore(machine(directories), root)).toBeUndefined();
});

it.each([
  ['mount point', MOUNT_POINT],
  ['placeholder of a cloud', CLOUD],
])('refuses a root behind a %s, and names it', async (_, tag) => {
  for (const root of ['/link', '/link/store'])
    expect(await examineStore(machine({ '/': 0, '/link': tag, '/link/store': 0 }), root)).toMatchObject({
      available: false,
      reason: expect.stringContaining(`/link is a link or mount point (reparse tag 0x${tag.toString(16)})`),
    });
});

it('asks the volume that the root itself is on', async () => {
  const volumes = { '/': 'NTFS', '/data': 'ReFS' };
  const directories = { '/': 0, '/data': 0 };
  expect(await examineStore(machine(directories, volumes), '/data/store')).toMatchObject({
    reason: '/data is ReFS; layers are kept on NTFS',
  });
});

it.each([
  ['FAT32', /is FAT32; layers are kept on NTFS/],
  ['ReFS', /is ReFS/],
  [undefined, /not ready/],
])('refuses a volume of %s, and says why', async (fileSystem, reason) => {
  const refusal = await examineStore(machine({ '/': 0 }, { '/': fileSystem }), '/store');
  expect(refusal).toMatchObject({ available: false, hint: 'choose another --root' });
  expect(refusal?.reason).toMatch(reason);
});
