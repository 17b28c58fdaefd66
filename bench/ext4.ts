/**
 * A Linux layer's tar to an ext4 image, against what mke2fs does with the extracted tree, tar to extract it, openssl to digest the tar, and
 * hcsshim's tar2ext4 where it is on the PATH. Our own is measured as it is installed: built.
 */

import { spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { TarWriter } from '../src/tar/tar-writer.ts';
import { measureNode, runPipeline } from './child.ts';
import { medianSeconds, report } from './report.ts';

const CHILD = fileURLToPath(new URL('./ext4-child.mjs', import.meta.url));
const SOURCE = resolve(import.meta.dirname, '../src');
const RUNS = 3;
/** Of the peers that write each file by itself, which take minutes on a slow disk. */
const PEER_RUNS = 1;

interface Layer {
  what: string;
  files: number;
  /** Of file number `index`. */
  sizeOf(index: number): number;
}

/** Like a distribution's root file system: most files small, some large. */
const ROOT: Layer = {
  what: 'root file system',
  files: 18_700,
  sizeOf: (index) => (index % 1000 === 7 ? 20_000_000 : 300 + ((index * 7919) % 26_000)),
};
const SMALL: Layer = { what: 'small files', files: 100_000, sizeOf: (index) => (index * 7919) % 3000 };
const MANY: Layer = { what: 'tiny files', files: 1_000_000, sizeOf: () => 100 };

export async function run(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'cimlet-bench-ext4-'));
  try {
    const modules = build(join(directory, 'built'));
    for (const layer of [ROOT, SMALL]) await compare(layer, directory, modules);
    measureMemory(MANY, directory, modules);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function compare(layer: Layer, directory: string, modules: string): Promise<void> {
  const tar = join(directory, 'layer.tar');
  const image = join(directory, 'image');
  const tree = join(directory, 'tree');
  writeLayer(tar, layer);
  const bytes = statSync(tar).size;
  const label = `ext4: ${layer.what}, ${layer.files} files, ${Math.round(bytes / 1e6)} MB`;
  const clean = () => {
    for (const path of [image, tree]) rmSync(path, { recursive: true, force: true });
  };
  const cpu = { digest: Number.POSITIVE_INFINITY, copy: Number.POSITIVE_INFINITY };
  const digest = await medianSeconds(RUNS, () => {
    cpu.digest = Math.min(cpu.digest, runPipeline('openssl dgst -sha256 "$1"', [tar]));
  });
  // What reading and writing as many bytes takes, whatever is done with them.
  const copy = await medianSeconds(
    RUNS,
    () => {
      cpu.copy = Math.min(cpu.copy, runPipeline('cp "$1" "$2"', [tar, image]));
    },
    clean,
  );
  const extract = await medianSeconds(
    PEER_RUNS,
    () => runPipeline('mkdir "$2" && tar -xf "$1" -C "$2"', [tar, tree]),
    clean,
  );
  const mke2fs = await medianSeconds(
    PEER_RUNS,
    () =>
      runPipeline('mke2fs -q -t ext4 -O ^has_journal -N "$3" -d "$2" "$1" "$4"', [
        image,
        tree,
        String(layer.files * 2),
        `${Math.ceil((bytes * 1.2 + layer.files * 5000) / 2 ** 20) + 64}M`,
      ]),
    () => rmSync(image, { force: true }),
  );
  const converter = await timeConverter(tar, image);
  for (const verity of [false, true]) {
    const runs = Array.from({ length: RUNS }, () => {
      rmSync(image, { force: true });
      const child = measureNode(CHILD, [modules, tar, image, ...(verity ? ['verity'] : [])]);
      return { ...child, ...(JSON.parse(child.stdout) as { seconds: number; cpu: number; inodes: number }) };
    }).sort((a, b) => a.seconds - b.seconds);
    const middle = runs[Math.floor(RUNS / 2)];
    if (middle === undefined || middle.inodes < layer.files) throw new Error('files are missing');
    const { seconds, peakMiB } = middle;
    const what = `${label}${verity ? ', dm-verity' : ''}`;
    report({ case: what, value: seconds, unit: 's', peer: 'openssl dgst -sha256', peerValue: digest });
    report({ case: what, value: seconds, unit: 's', peer: 'cp of the tar', peerValue: copy });
    // On a busy machine the clock says more about the others.
    const spent = { case: `${what}, CPU`, value: Math.min(...runs.map((each) => each.cpu)), unit: 's' };
    report({ ...spent, peer: 'openssl dgst -sha256', peerValue: cpu.digest });
    report({ ...spent, peer: 'cp of the tar', peerValue: cpu.copy });
    if (converter !== undefined && !verity) {
      report({ case: what, value: seconds, unit: 's', peer: 'tar2ext4', peerValue: converter.seconds });
      report({ ...spent, peer: 'tar2ext4', peerValue: converter.cpu });
    }
    report({
      case: what,
      value: bytes / 1e6 / seconds,
      unit: 'MB/s',
      peer: 'mke2fs -d',
      peerValue: bytes / 1e6 / mke2fs,
    });
    report({
      case: what,
      value: layer.files / seconds,
      unit: 'files/s',
      peer: 'tar -x',
      peerValue: layer.files / extract,
    });
    report({ case: `${what}, peak memory`, value: peakMiB, unit: 'MiB' });
  }
  clean();
  rmSync(tar);
}

/** hcsshim's own converter, which no distribution packages: who has built it sees it compared. */
async function timeConverter(
  tar: string,
  image: string,
): Promise<{ seconds: number; cpu: number } | undefined> {
  if (spawnSync('tar2ext4', ['-h']).error !== undefined) {
    process.stderr.write('  no tar2ext4 on the PATH: not compared with it\n');
    return undefined;
  }
  let cpu = Number.POSITIVE_INFINITY;
  const convert = () => {
    cpu = Math.min(cpu, runPipeline('tar2ext4 -i "$1" -o "$2"', [tar, image]));
  };
  const seconds = await medianSeconds(RUNS, convert, () => rmSync(image, { force: true }));
  return { seconds, cpu };
}

function measureMemory(layer: Layer, directory: string, modules: string): void {
  const tar = join(directory, 'layer.tar');
  writeLayer(tar, layer);
  const image = join(directory, 'image');
  for (const verity of [false, true]) {
    rmSync(image, { force: true });
    const child = measureNode(CHILD, [modules, tar, image, ...(verity ? ['verity'] : [])]);
    const { seconds } = JSON.parse(child.stdout) as { seconds: number };
    const what = `ext4: ${layer.what}, ${layer.files} files${verity ? ', dm-verity' : ''}`;
    report({ case: what, value: layer.files / seconds, unit: 'files/s' });
    report({ case: `${what}, peak memory`, value: child.peakMiB, unit: 'MiB' });
  }
}

/** The sources as JavaScript: an installed program doesn't carry the compiler that takes types off. */
function build(directory: string): string {
  const sources = readdirSync(SOURCE, { recursive: true, encoding: 'utf8' });
  for (const name of sources.filter((each) => each.endsWith('.ts'))) {
    const plain = stripTypeScriptTypes(readFileSync(join(SOURCE, name), 'utf8'));
    const target = join(directory, name.replace(/\.ts$/, '.js'));
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, plain.replaceAll(/(from '[^']+)\.ts'/g, "$1.js'"));
  }
  writeFileSync(join(directory, 'package.json'), '{"type":"module"}');
  return directory;
}

/** Writes a tar of pieces of Node's own binary, 1,000 files in each directory. */
function writeLayer(path: string, { files, sizeOf }: Layer): void {
  const source = openSync(process.execPath, 'r');
  const target = openSync(path, 'w');
  try {
    const total = statSync(process.execPath).size;
    let pending: Uint8Array[] = [];
    let bytes = 0;
    const flush = () => {
      writeSync(target, Buffer.concat(pending));
      pending = [];
      bytes = 0;
    };
    const tar = new TarWriter((chunk) => {
      pending.push(Buffer.from(chunk));
      bytes += chunk.length;
      if (bytes > 4_000_000) flush();
    });
    for (let index = 0; index < files; index++) {
      const directory = `usr/lib/package-${Math.floor(index / 1000)}`;
      if (index % 1000 === 0) tar.entry({ name: directory, type: 'directory', mode: 0o755 });
      const content = Buffer.alloc(sizeOf(index));
      readSync(source, content, 0, content.length, (index * 104_729) % (total - content.length));
      tar.file({ name: `${directory}/file-number-${index}.so`, mode: 0o644 }, content);
    }
    tar.finish();
    flush();
  } finally {
    closeSync(source);
    closeSync(target);
  }
}
