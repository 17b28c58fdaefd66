/** A three-layer image made by umoci from a real directory tree, as a Windows image (everything under Files/). */

import { execFileSync } from 'node:child_process';
import {
  cpSync,
  linkSync,
  mkdirSync,
  readdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';

const PACKAGES = resolve(import.meta.dirname, '../../node_modules');
/** Real files by the thousand, in directories deep and flat. */
const REAL_TREES = ['lodash', '@types', 'ajv', 'typescript', 'yaml', 'xstate', 'koffi', 'vitest', 'uuid'];

function run(command: string, args: string[], cwd: string): void {
  execFileSync(command, args, { cwd, stdio: ['ignore', 'ignore', 'pipe'] });
}

/** Builds the layout at `<directory>/layout` (tag `demo`) and umoci's own unpacking of it; returns both paths. */
export function buildUmociImage(directory: string): { layout: string; unpacked: string; files: number } {
  const image = 'layout:demo';
  const rootfs = join(directory, 'bundle/rootfs');
  const files = join(rootfs, 'Files');
  run('umoci', ['init', '--layout', 'layout'], directory);
  run('umoci', ['new', '--image', image], directory);
  run('umoci', ['unpack', '--image', image, 'bundle'], directory);

  mkdirSync(files, { recursive: true });
  for (const tree of REAL_TREES)
    cpSync(join(PACKAGES, tree), join(files, 'packages', tree), { recursive: true });
  addOddities(files);
  run('umoci', ['repack', '--refresh-bundle', '--image', image, 'bundle'], directory);

  rmSync(join(files, 'packages/yaml'), { recursive: true });
  rmSync(join(files, 'packages/uuid/package.json'));
  writeFileSync(join(files, 'packages/ajv/package.json'), '{"changed": "in the second layer"}\n');
  linkSync(join(files, 'odd/first-name.txt'), join(files, 'odd/third-name.txt'));
  rmSync(join(files, 'odd/becomes-directory'));
  mkdirSync(join(files, 'odd/becomes-directory'));
  writeFileSync(join(files, 'odd/becomes-directory/inside'), 'a file became a directory');
  rmSync(join(files, 'odd/becomes-file'), { recursive: true });
  writeFileSync(join(files, 'odd/becomes-file'), 'a directory became a file');
  run('umoci', ['repack', '--refresh-bundle', '--image', image, 'bundle'], directory);

  addRawLayer(directory, image);
  run('umoci', ['config', '--image', image, '--os', 'windows', '--architecture', 'amd64'], directory);
  run('umoci', ['raw', 'unpack', '--image', image, 'unpacked'], directory);
  return {
    layout: join(directory, 'layout'),
    unpacked: join(directory, 'unpacked/Files'),
    files: readdirSync(join(directory, 'unpacked/Files'), { recursive: true }).length,
  };
}

function addOddities(files: string): void {
  const odd = join(files, 'odd');
  mkdirSync(join(odd, 'becomes-file/deep'), { recursive: true });
  writeFileSync(join(odd, 'becomes-file/deep/file'), 'x');
  writeFileSync(join(odd, 'becomes-directory'), 'x');
  writeFileSync(join(odd, 'first-name.txt'), 'one file, several names\n'.repeat(1000));
  linkSync(join(odd, 'first-name.txt'), join(odd, 'second-name.txt'));
  symlinkSync('first-name.txt', join(odd, 'relative-link'));
  symlinkSync('../packages/ajv', join(odd, 'directory-link'));
  symlinkSync('nowhere/at/all', join(odd, 'dangling-link'));
  writeFileSync(join(odd, 'empty'), '');
  for (const size of [1, 4095, 4096, 4097, 65_537])
    writeFileSync(join(odd, `size-${size}`), Buffer.alloc(size, size % 251));
  writeFileSync(join(odd, 'sparse'), 'start');
  truncateSync(join(odd, 'sparse'), 3_000_000);
  writeFileSync(join(odd, 'zeros'), Buffer.alloc(100_000));
  writeFileSync(join(odd, 'n'.repeat(200)), 'a long name');
  writeFileSync(join(odd, 'żółć-日本語-😀.txt'), 'a name beyond ASCII');
  const deep = join(odd, ...Array.from({ length: 40 }, (_, level) => `directory-at-level-${level}`));
  mkdirSync(deep, { recursive: true });
  writeFileSync(join(deep, 'bottom'), 'deep');
  mkdirSync(join(odd, 'opaque/lower-directory'), { recursive: true });
  writeFileSync(join(odd, 'opaque/lower-file'), 'hidden by the third layer');
  mkdirSync(join(odd, 'empty-directory'));
  const day = new Date('2001-02-03T04:05:06Z');
  for (const name of ['empty', 'sparse', 'empty-directory']) utimesSync(join(odd, name), day, day);
}

/** The third layer by hand: an opaque directory, and a hard link whose target is in a lower layer only. */
function addRawLayer(directory: string, image: string): void {
  const odd = join(directory, 'raw/Files/odd');
  mkdirSync(join(odd, 'opaque'), { recursive: true });
  writeFileSync(join(odd, 'opaque/.wh..wh..opq'), '');
  writeFileSync(join(odd, 'opaque/only-this'), 'the opaque directory holds only this');
  writeFileSync(join(odd, 'size-65537'), 'stands for the lower file of that name, then leaves the archive');
  linkSync(join(odd, 'size-65537'), join(odd, 'zz-link-to-lower'));
  run(
    'tar',
    ['--format=posix', '--sort=name', '--owner=0', '--group=0', '-cf', '../raw.tar', 'Files'],
    join(directory, 'raw'),
  );
  run('tar', ['--delete', '-f', 'raw.tar', 'Files/odd/size-65537'], directory);
  run('umoci', ['raw', 'add-layer', '--image', image, 'raw.tar'], directory);
}
