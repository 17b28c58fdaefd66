/** A layer's way from tar.gz to a committed, verified CIM, against what other programs need for less. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { measureNode, runPipeline } from './child.ts';
import { makeLayer } from './fixtures.ts';
import { medianSeconds, report } from './report.ts';

const CHILD = fileURLToPath(new URL('./unpack-child.ts', import.meta.url));
const RUNS = 3;

export async function run(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'cimlet-bench-unpack-'));
  try {
    for (const size of ['small', 'large'] as const) {
      const layer = await makeLayer(join(directory, size), size);
      const root = join(directory, 'root');
      const scratch = join(directory, 'scratch');
      const clean = (): void => {
        for (const path of [root, scratch]) rmSync(path, { recursive: true, force: true });
      };
      const label = `unpack: ${layer.files} files, ${Math.round(layer.bytes / 1e6)} MB`;
      let peakMiB = 0;
      const own: number[] = [];
      const peer: number[] = [];
      for (let index = 0; index < RUNS; index++) {
        clean();
        const { stdout, peakMiB: peak } = measureNode(CHILD, [layer.file, layer.digest, layer.diffId, root]);
        own.push((JSON.parse(stdout) as { seconds: number }).seconds);
        peakMiB = Math.max(peakMiB, peak);
        peer.push(
          await medianSeconds(1, () => runPipeline('gzip -dc "$1" | openssl dgst -sha256', [layer.file])),
        );
      }
      report({
        case: `${label}, verified and committed`,
        value: middle(own),
        unit: 's',
        peer: 'gzip -dc | openssl dgst -sha256',
        peerValue: middle(peer),
      });
      const tar = await medianSeconds(
        RUNS,
        () => runPipeline('mkdir "$2" && tar -xzf "$1" -C "$2"', [layer.file, scratch]),
        clean,
      );
      report({ case: label, value: middle(own), unit: 's', peer: 'tar -xz', peerValue: tar });
      report({ case: `${label}, peak memory`, value: peakMiB, unit: 'MiB' });
      clean();
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function middle(values: number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
