/** Looking files up in a CIM of 100,000 files, against stat(2) on the same tree extracted. */

import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { publishCim } from '../src/cim/publish.ts';
import { openCim } from '../src/cim/reader.ts';
import { FileAttribute } from '../src/cim/types.ts';
import { createCimWriter } from '../src/cim/writer.ts';
import { medianSeconds, report } from './report.ts';

const FILES = 100_000;
const PER_DIRECTORY = 500;
const LOOKUPS = 100_000;
const GUID = '6f1c2f0e-5d6d-5c39-8f6b-0d0f5c9a1b11';
const TIMES = { creationTime: 1n, lastWriteTime: 1n, changeTime: 1n, lastAccessTime: 1n };

export async function run(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'cimlet-bench-cim-'));
  try {
    const paths = Array.from({ length: FILES }, (_, index) => {
      const folder = `Directory ${Math.floor(index / PER_DIRECTORY)}`;
      return { folder, path: `${folder}/File number ${index}.dll` };
    });
    const write = await medianSeconds(1, () => writeCim(directory, paths));
    report({ case: 'cim: write and commit 100,000 files', value: write, unit: 's' });

    const image = join(directory, 'bench.cim');
    const open = await medianSeconds(5, () => openCim(image).close());
    report({ case: 'cim: open', value: open * 1000, unit: 'ms' });

    const order = shuffledPaths(paths.map(({ path }) => path));
    const cim = openCim(image);
    try {
      const look = (): void => {
        for (const path of order) {
          const id = cim.lookup(path);
          if (id === undefined) throw new Error(`${path} is missing`);
          cim.stat(id);
        }
      };
      const seconds = await medianSeconds(3, look);
      writeTree(join(directory, 'tree'), paths);
      const peer = await medianSeconds(3, () => {
        for (const path of order) statSync(join(directory, 'tree', path));
      });
      report({
        case: 'cim: stat by path at random',
        value: (seconds / LOOKUPS) * 1e6,
        unit: 'us',
        peer: 'fs.statSync',
        peerValue: (peer / LOOKUPS) * 1e6,
      });
    } finally {
      cim.close();
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function writeCim(directory: string, paths: readonly { folder: string; path: string }[]): void {
  const writer = createCimWriter({ directory, name: 'bench', regionGuid: GUID });
  try {
    for (const [index, { folder, path }] of paths.entries()) {
      if (index % PER_DIRECTORY === 0)
        writer.createFile(folder, { attributes: FileAttribute.directory, size: 0, ...TIMES }).close();
      const stream = writer.createFile(path, { attributes: FileAttribute.archive, size: 8, ...TIMES });
      stream.write(Buffer.from(String(index).padStart(8)));
      stream.close();
    }
    writer.finish();
  } finally {
    writer.close();
  }
  publishCim(directory, 'bench', GUID);
}

function writeTree(directory: string, paths: readonly { folder: string; path: string }[]): void {
  for (const [index, { folder, path }] of paths.entries()) {
    if (index % PER_DIRECTORY === 0) mkdirSync(join(directory, folder), { recursive: true });
    writeFileSync(join(directory, path), '');
  }
}

/** The same order in every run. */
function shuffledPaths(paths: readonly string[]): string[] {
  let state = 12_345;
  return Array.from({ length: LOOKUPS }, () => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
    return paths[state % paths.length] ?? '';
  });
}
