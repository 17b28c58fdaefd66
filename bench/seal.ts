/**
 * Sealing a container of 1 GB, durably, against the digest of the same file: again and again in one process, as the first thing that a
 * process does, and that with nothing of the file in memory.
 */

import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createBlockCimWriter } from '../src/cim/block-writer.ts';
import { publishContainer } from '../src/cim/publish.ts';
import { sealContainer, verifySeal } from '../src/cim/seal.ts';
import { measureNode, runPipeline } from './child.ts';
import { medianSeconds, report } from './report.ts';

const FILES = 100;
const FILE_SIZE = 10_000_000;
const RUNS = 7;
const GUID = '6f1c2f0e-5d6d-5c39-8f6b-0d0f5c9a1b13';
const TIMES = { creationTime: 1n, lastWriteTime: 1n, changeTime: 1n, lastAccessTime: 1n };

export async function run(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'cimlet-bench-seal-'));
  try {
    const file = join(directory, 'layer.bcim');
    writeContainer(file);
    const { size } = statSync(file);
    const megabytes = size / 1e6;
    const unseal = (): void => truncateSync(file, size);
    const label = `seal: ${Math.round(megabytes)} MB`;
    const compare = async (name: string, prepare: () => void, seconds: () => Promise<number>) => {
      const own: number[] = [];
      const digests: number[] = [];
      // In turns, so that whatever else the machine does weighs on both.
      for (let index = 0; index < RUNS; index++) {
        prepare();
        digests.push(await medianSeconds(1, () => runPipeline('openssl dgst -sha256 "$1"', [file])));
        prepare();
        own.push(await seconds());
      }
      const peer = { peer: 'openssl dgst -sha256', peerValue: megabytes / middle(digests) };
      report({ case: `${label}, ${name}`, value: megabytes / middle(own), unit: 'MB/s', ...peer });
    };
    const inNewProcess = async () =>
      Number(measureNode(new URL('./seal-child.ts', import.meta.url).pathname, [file]).stdout);
    await compare('sealed', unseal, () => medianSeconds(1, () => sealContainer(file)));
    await compare('first in a process', unseal, inNewProcess);
    const forget = (): void => {
      unseal();
      runPipeline('dd of="$1" oflag=nocache conv=notrunc,fdatasync count=0 status=none', [file]);
    };
    await compare('first, read from disk', forget, inNewProcess);
    unseal();
    await sealContainer(file);
    await compare(
      'verified',
      () => undefined,
      () =>
        medianSeconds(1, async () => {
          const [fault] = await verifySeal(file);
          if (fault !== undefined) throw new Error(fault.message);
        }),
    );
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function middle(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function writeContainer(file: string): void {
  const data = readFileSync(process.execPath).subarray(0, FILE_SIZE);
  const writer = createBlockCimWriter({ file, name: 'layer', regionGuid: GUID });
  try {
    for (let index = 0; index < FILES; index++) {
      data.writeUInt32LE(index, 0);
      const stream = writer.createFile(`binary-${index}.exe`, {
        attributes: 0,
        size: data.length,
        ...TIMES,
      });
      stream.write(data);
      stream.close();
    }
    writer.finish();
  } finally {
    writer.close();
  }
  publishContainer(file);
}
