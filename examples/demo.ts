/**
 * `npm run demo`: makes a small image, applies examples/manifests, shows the files, plans again (nothing to do),
 * breaks two things on purpose, repairs them, and deletes everything. No network; root only for the kernel mount.
 */

import { spawnSync } from 'node:child_process';
import { existsSync, lstatSync, readdirSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { makeExampleImage, makeLinuxImage } from './image.ts';

const REPOSITORY = join(import.meta.dirname, '..');
const DEMO = '/tmp/cimlet-demo';
const ROOT = join(DEMO, 'root');
const MANIFESTS = ['-f', 'examples/manifests', '--root', ROOT];

function say(text: string): void {
  console.log(`\n# ${text}`);
}

/** Runs a command of the reader's shell, shown as typed; the demo stops when it ends otherwise than expected. */
function run(command: string, args: string[], expected = 0): void {
  console.log(`$ ${[command, ...args].join(' ')}`);
  const program =
    command === 'cimlet'
      ? [process.execPath, '--disable-warning=ExperimentalWarning', 'src/main.ts']
      : [command];
  const [file = '', ...before] = program;
  const { status, error } = spawnSync(file, [...before, ...args], {
    cwd: REPOSITORY,
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (status !== expected)
    throw new Error(`${command} ended with ${error?.message ?? `exit code ${status}`}`);
}

/** A region file of the topmost layer vanishes; a kernel mount is taken away by hand. */
function breakThings(): void {
  const layers = join(ROOT, 'cim-layers');
  const region = readdirSync(layers).find((name) => name.startsWith('region_'));
  if (region === undefined) throw new Error(`no region file in ${layers}`);
  console.log(`$ rm ${relative(DEMO, join(layers, region))}`);
  unlinkSync(join(layers, region));
  const mountPoint = join(DEMO, 'hello');
  if (lstatSync(mountPoint).isSymbolicLink()) unlinkSync(mountPoint);
  else run('umount', [mountPoint]);
}

/** What is written is in no layer, and outlives its mount. */
function writeToMount(): void {
  const work = join(DEMO, 'work');
  const manifests = ['-f', 'examples/writable', '--root', ROOT];
  run('cimlet', ['apply', ...manifests, '--yes']);
  console.log(`$ echo changed > ${work}/new.txt`);
  writeFileSync(join(work, 'new.txt'), 'changed\n');
  run('cimlet', ['layer', 'diff', 'mount/work', '-o', join(DEMO, 'changes.tar'), '--root', ROOT]);
  run('umount', [work]);
  run('cimlet', ['apply', ...manifests, '--yes']);
  run('cat', [join(work, 'new.txt')]);
  run('cimlet', ['delete', ...manifests, '--yes']);
}

/** One bit of a copy of a sealed layer flips; verification refuses the copy. */
function tamperWithCopy(): void {
  const snapshots = join(ROOT, 'snapshots');
  const container = readdirSync(snapshots, { recursive: true, encoding: 'utf8' }).find((name) =>
    name.endsWith('layer.bcim'),
  );
  if (container === undefined) throw new Error(`no block CIM in ${snapshots}`);
  const copy = join(DEMO, 'tampered.bcim');
  const bytes = readFileSync(join(snapshots, container));
  bytes[5000] = (bytes[5000] ?? 0) ^ 1;
  writeFileSync(copy, bytes);
  console.log(`$ # ${copy}: a copy of a layer with one bit flipped`);
  run('cimlet', ['cim', 'verify', copy], 1);
}

const started = performance.now();
say('A Windows image: a base layer, and one with whiteouts, links, streams and ACLs');
if (existsSync(ROOT)) run('cimlet', ['delete', ...MANIFESTS, '--yes']);
await makeExampleImage(join(REPOSITORY, 'examples/images'));
console.log('examples/images/hello');

say('What would be done?');
run('cimlet', ['plan', ...MANIFESTS]);

say('Do it');
run('cimlet', ['apply', ...MANIFESTS, '--yes']);

say('The files, through the mount');
run('ls', ['-lR', `--time-style=full-iso`, join(DEMO, 'hello/')]);

say('What the host holds');
run('cimlet', ['get', 'all', '--root', ROOT]);

say('A second plan is empty');
run('cimlet', ['plan', ...MANIFESTS]);

say('Three block CIMs, sealed and merged: one root hash stands for every byte');
run('cimlet', ['describe', 'chain/verified', '--root', ROOT]);
tamperWithCopy();

if (!lstatSync(join(DEMO, 'hello')).isSymbolicLink()) {
  say('Write to a mount: the layers stay as they are, and what was written outlives the mount');
  writeToMount();

  say('A Linux image: every layer a disk with dm-verity, mounted as one');
  await makeLinuxImage(join(REPOSITORY, 'examples/images'));
  const manifests = ['-f', 'examples/linux', '--root', ROOT];
  run('cimlet', ['apply', ...manifests, '--yes']);
  run('ls', ['-lR', '--time-style=full-iso', join(DEMO, 'tux/')]);
  run('cimlet', ['delete', ...manifests, '--yes']);
}

say('Break two things on purpose: a region file of a layer, and a mount');
breakThings();
run('cimlet', ['plan', ...MANIFESTS]);
run('cimlet', ['apply', ...MANIFESTS, '--yes']);
run('cimlet', ['plan', ...MANIFESTS]);

say('Delete everything');
run('cimlet', ['delete', ...MANIFESTS, '--yes']);
run('cimlet', ['get', 'all', '--root', ROOT]);
rmSync(DEMO, { recursive: true });
console.log(`\nDone in ${((performance.now() - started) / 1000).toFixed(1)} s. Next: docs/concepts.md`);
