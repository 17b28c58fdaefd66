/** What tars of Linux layers hold that text in UTF-8 can't. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { TarHeader } from '../../src/layers/tar-format.ts';
import { TarReader } from '../../src/layers/tar-reader.ts';
import { isRoot, requireOrSkip } from '../support/requirements.ts';
import { run } from './tar-helpers.ts';

function read(tar: Buffer): TarHeader[] {
  const headers: TarHeader[] = [];
  const reader = new TarReader(
    { entry: (header) => headers.push(header), data: () => undefined, end: () => undefined },
    { text: 'bytes', sparse: true },
  );
  reader.write(tar);
  reader.finish();
  return headers;
}

it.runIf(requireOrSkip('root', isRoot))(
  'keeps names and xattrs of any bytes, and device numbers, as GNU tar writes them',
  () => {
    const directory = mkdtempSync(join(tmpdir(), 'cimlet-tar-'));
    try {
      const name = Buffer.from([0x66, 0xff, 0x0a, 0xe4]);
      const path = Buffer.concat([Buffer.from(`${directory}/`), name]);
      writeFileSync(path, '');
      run('setfattr', ['-n', 'user.bytes', '-v', '0xff00800a3d', directory]);
      run('mknod', [join(directory, 'z'), 'b', '259', '70000']);
      for (const format of ['gnu', 'posix']) {
        const tar = ['--sort=name', `--format=${format}`, '-C', directory, '-cf', '-', '.'];
        const [top, file, device] = read(run('tar', format === 'gnu' ? tar : ['--xattrs', ...tar]));
        expect(file?.name).toBe(`./${name.toString('latin1')}`);
        expect(device?.device).toEqual({ major: 259, minor: 70000 });
        if (format === 'posix') expect(top?.records.get('SCHILY.xattr.user.bytes')).toBe('\xff\x00\x80\x0a=');
      }
    } finally {
      rmSync(directory, { recursive: true });
    }
  },
);
