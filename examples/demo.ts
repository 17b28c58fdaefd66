/**
 * `npm run demo`: makes a small image, applies examples/manifests, shows the files, plans again (nothing to do),
 * breaks two things on purpose, repairs them, and deletes everything. No network; root only for the kernel mount.
 * On Windows, as an administrator, without what Windows can't do: extracted views, and Linux layers outside of VMs.
 */

import { spawnSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { makeExampleImage, makeLinuxImage } from './image.ts';

const REPOSITORY = join(import.meta.dirname, '..');
const IS_WINDOWS = process.platform === 'win32';
/** Where the manifests have their mounts. */
const PLACE = '/tmp/cimlet-demo';
const DEMO = IS_WINDOWS ? join(tmpdir(), 'cimlet-demo') : PLACE;
/** Where commands are given, beside `examples`. */
const HERE = IS_WINDOWS ? DEMO : REPOSITORY;
const EXAMPLES = join(HERE, 'examples');
const ROOT = join(DEMO, 'root');
const MANIFESTS = ['-f', 'examples/manifests', '--root', ROOT];
const WRITABLE = ['-f', 'examples/writable', '--root', ROOT];
const LINUX = ['-f', 'examples/linux', '--root', ROOT];
const LIST = IS_WINDOWS ? ['cmd', '/c', 'dir', '/s'] : ['ls', '-lR', '--time-style=full-iso'];
const PRINT = IS_WINDOWS ? ['cmd', '/c', 'type'] : ['cat'];

function say(text: string): void {
  console.log(`\n# ${text}`);
}

/** Runs a command of the reader's shell, shown as typed; the demo stops when it ends otherwise than expected. */
function run(command: readonly string[], expected = 0): void {
  console.log(`$ ${command.join(' ')}`);
  const [name = '', ...args] = command;
  const program = [
    process.execPath,
    '--disable-warning=ExperimentalWarning',
    join(REPOSITORY, 'src/main.ts'),
  ];
  const [file = '', ...before] = name === 'cimlet' ? program : [name];
  const { status, error } = spawnSync(file, [...before, ...args], {
    cwd: HERE,
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (status !== expected) throw new Error(`${name} ended with ${error?.message ?? `exit code ${status}`}`);
}

function cimlet(...args: readonly string[]): void {
  run(['cimlet', ...args]);
}

/** The manifests with mounts at places of Windows. */
function copyManifests(): void {
  for (const folder of ['manifests', 'writable']) {
    mkdirSync(join(EXAMPLES, folder), { recursive: true });
    for (const name of readdirSync(join(REPOSITORY, 'examples', folder))) {
      const text = readFileSync(join(REPOSITORY, 'examples', folder, name), 'utf8');
      if (text.includes('view: Extracted')) continue;
      writeFileSync(join(EXAMPLES, folder, name), text.replaceAll(PLACE, DEMO.replaceAll('\\', '/')));
    }
  }
}

/** The mount is taken away, and a region file of the topmost layer vanishes. */
function breakThings(): void {
  // Windows has no command that takes such a mount away, and deletes no file that is in use.
  if (IS_WINDOWS) cimlet('delete', 'mount/hello', '--root', ROOT, '--yes');
  const layers = join(ROOT, 'cim-layers');
  const region = readdirSync(layers).find((name) => name.startsWith('region_'));
  if (region === undefined) throw new Error(`no region file in ${layers}`);
  console.log(`$ rm ${relative(DEMO, join(layers, region))}`);
  unlinkSync(join(layers, region));
  if (IS_WINDOWS) return;
  if (isExtracted()) unlinkSync(join(DEMO, 'hello'));
  else run(['umount', join(DEMO, 'hello')]);
}

/** What is written is in no layer, and outlives its mount. */
function writeToMount(): void {
  const work = join(DEMO, 'work');
  const file = join(work, 'new.txt');
  cimlet('apply', ...WRITABLE, '--yes');
  console.log(`$ echo changed > ${file}`);
  writeFileSync(file, 'changed\n');
  cimlet('layer', 'diff', 'mount/work', '-o', join(DEMO, 'changes.tar'), '--root', ROOT);
  if (!IS_WINDOWS) run(['umount', work]);
  cimlet('apply', ...WRITABLE, '--yes');
  run([...PRINT, file]);
  cimlet('delete', ...WRITABLE, '--yes');
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
  run(['cimlet', 'cim', 'verify', copy], 1);
}

function isExtracted(): boolean {
  return !IS_WINDOWS && lstatSync(join(DEMO, 'hello')).isSymbolicLink();
}

const started = performance.now();
say('A Windows image: a base layer, and one with whiteouts, links, streams and ACLs');
if (IS_WINDOWS) copyManifests();
if (existsSync(ROOT)) cimlet('delete', ...MANIFESTS, '--yes');
await makeExampleImage(join(EXAMPLES, 'images'));
console.log('examples/images/hello');

say('What would be done?');
cimlet('plan', ...MANIFESTS);

say('Do it');
cimlet('apply', ...MANIFESTS, '--yes');

say('The files, through the mount');
run([...LIST, join(DEMO, 'hello/')]);

say('What the host holds');
cimlet('get', 'all', '--root', ROOT);

say('A second plan is empty');
cimlet('plan', ...MANIFESTS);

say('Three block CIMs, sealed and merged: one root hash stands for every byte');
cimlet('describe', 'chain/verified', '--root', ROOT);
// The container that Windows writes only Windows reads.
if (!IS_WINDOWS) tamperWithCopy();

if (!isExtracted()) {
  say('Write to a mount: the layers stay as they are, and what was written outlives the mount');
  writeToMount();
}

if (!isExtracted() && !IS_WINDOWS) {
  say('A Linux image: every layer a disk with dm-verity, mounted as one');
  await makeLinuxImage(join(EXAMPLES, 'images'));
  cimlet('apply', ...LINUX, '--yes');
  run([...LIST, join(DEMO, 'tux/')]);
  cimlet('delete', ...LINUX, '--yes');
}

say('Break two things on purpose: a region file of a layer, and a mount');
breakThings();
cimlet('plan', ...MANIFESTS);
cimlet('apply', ...MANIFESTS, '--yes');
cimlet('plan', ...MANIFESTS);

say('Delete everything');
cimlet('delete', ...MANIFESTS, '--yes');
cimlet('get', 'all', '--root', ROOT);
rmSync(DEMO, { recursive: true });
console.log(`\nDone in ${((performance.now() - started) / 1000).toFixed(1)} s. Next: docs/concepts.md`);
