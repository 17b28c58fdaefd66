/** What tars of Linux layers hold that text in UTF-8 can't. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { TarHeader } from '../../src/tar/tar-format.ts';
import { TarReader } from '../../src/tar/tar-reader.ts';
import { hasTool, isRoot, requireOrSkip } from '../support/requirements.ts';
import { run, tarOf } from '../tar/tar-helpers.ts';

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

it.runIf(requireOrSkip('root', isRoot) && requireOrSkip('attr', hasTool('setfattr')))(
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

it('says names in errors as people read them', () => {
  const tar = tarOf({ name: 'grün', type: 'file', content: 'content' });
  // Its extended header takes two blocks.
  expect(() => read(tar.subarray(0, 1024 + 515))).toThrow('inside the data of "grün"');
  const header = tar.subarray(1024, 1536);
  header.write('y', 156, 'latin1');
  header.fill(0x20, 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  expect(() => read(tar)).toThrow('tar entry "grün" at offset 0: unknown entry type');
});
