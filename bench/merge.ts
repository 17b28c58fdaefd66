/**
 * Merging 2, 16 and 128 layers of 500,000 entries in total: time must grow with entries, not with layers or with bytes. The first link
 * to a file far below is the exception: it is looked up in each layer between.
 */

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createBlockCimWriter } from '../src/cim/block-writer.ts';
import { publishContainer } from '../src/cim/publish.ts';
import { FileAttribute } from '../src/cim/types.ts';
import { measureNode } from './child.ts';
import { report } from './report.ts';

const CHILD = fileURLToPath(new URL('./merge-child.ts', import.meta.url));
const DIRECTORIES = 250;
const RUNS = 3;
const TIMES = { creationTime: 1n, lastWriteTime: 1n, changeTime: 1n, lastAccessTime: 1n };

interface Stack {
  layers: number;
  /** Of all layers, directories included. */
  entries: number;
  /** Bytes of each file. */
  size: number;
  /** Whether all files of the upper layers are merge links to files of the lowest. */
  linked?: boolean;
}

export async function run(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'cimlet-bench-merge-'));
  try {
    let pair: number | undefined;
    for (const layers of [2, 16, 128]) {
      const { seconds, peakMiB } = measure(directory, { layers, entries: 500_000, size: 16 });
      const peer = pair === undefined ? {} : { peer: '2 layers', peerValue: pair };
      pair ??= seconds;
      report({ case: `merge: ${layers} layers, 500000 entries`, value: seconds, unit: 's', ...peer });
      report({ case: `merge: ${layers} layers, peak memory`, value: peakMiB, unit: 'MiB' });
    }
    const small = measure(directory, { layers: 2, entries: 50_000, size: 16 });
    const large = measure(directory, { layers: 2, entries: 50_000, size: 16_384 });
    report({
      case: 'merge: 50000 entries, files of 16 KiB',
      value: large.seconds,
      unit: 's',
      peer: 'files of 16 bytes',
      peerValue: small.seconds,
    });
    const far = { layers: 128, entries: 50_000, size: 16 };
    report({
      case: 'merge: 128 layers, 50000 entries, links to the lowest',
      value: measure(directory, { ...far, linked: true }).seconds,
      unit: 's',
      peer: 'files instead',
      peerValue: measure(directory, far).seconds,
    });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** The middle one of several merges. */
function measure(parent: string, stack: Stack): { seconds: number; peakMiB: number } {
  const directory = join(parent, 'stack');
  mkdirSync(directory);
  try {
    const sources = Array.from({ length: stack.layers }, (_, layer) => writeLayer(directory, stack, layer));
    const runs = Array.from({ length: RUNS }, (_, index) => {
      const merged = join(directory, `merged-${index}.bcim`);
      const { stdout, peakMiB } = measureNode(CHILD, [merged, ...sources.toReversed()]);
      const { seconds, files } = JSON.parse(stdout) as { seconds: number; files: number };
      // Directories are shared, links are names of one file, and a few of a hundred entries replace or take away what is below.
      const layersWithFiles = stack.linked === true ? 1 : stack.layers;
      const own = (stack.entries / stack.layers - DIRECTORIES) * layersWithFiles;
      if (files < own * 0.75) throw new Error(`${files} files merged of ${own}`);
      return { seconds, peakMiB };
    });
    runs.sort((a, b) => a.seconds - b.seconds);
    return runs[Math.floor(RUNS / 2)] ?? { seconds: Number.NaN, peakMiB: Number.NaN };
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/**
 * Writes layer number `layer` of a stack, 0 lowest, and returns the CIM's path. All layers share their directories. An upper layer replaces,
 * takes away and links to files of the one right below it, a few of a hundred each.
 */
function writeLayer(directory: string, { layers, entries, size, linked }: Stack, layer: number): string {
  const file = join(directory, `layer-${layer}.bcim`);
  const regionGuid = `00000000-0000-4000-8000-${String(layer).padStart(12, '0')}`;
  const writer = createBlockCimWriter({ file, name: 'layer', regionGuid });
  const data = Buffer.alloc(size, 1);
  const pathOf = (owner: number, index: number): string =>
    `Directory ${index % DIRECTORIES}/File ${owner}-${index}.dll`;
  try {
    for (let index = 0; index < DIRECTORIES; index++)
      writer
        .createFile(`Directory ${index}`, { attributes: FileAttribute.directory, size: 0, ...TIMES })
        .close();
    const files = Math.floor(entries / layers) - DIRECTORIES;
    for (let index = 0; index < files; index++) {
      const kind = layer === 0 ? 0 : index % 100;
      // A plain file of the layer below, except for the last few.
      const below = pathOf(layer - 1, index + 10);
      if (linked === true && layer > 0) writer.createMergeLink(pathOf(layer, index), pathOf(0, index));
      else if (kind === 1) writer.tombstone(below);
      else if (kind === 2) writer.createMergeLink(pathOf(layer, index), pathOf(layer - 1, index - 2));
      else {
        data.writeUInt32LE(layer, 0);
        data.writeUInt32LE(index, 4);
        const path = kind >= 3 && kind <= 7 ? below : pathOf(layer, index);
        const stream = writer.createFile(path, { attributes: FileAttribute.archive, size, ...TIMES });
        stream.write(data);
        stream.close();
      }
    }
    writer.finish();
  } finally {
    writer.close();
  }
  publishContainer(file);
  return join(file, 'layer.cim');
}
