/** A Windows layer of 100,000 files and 2 GB from its tar to a durable block CIM, sealed and not, against what tar and openssl need for less. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { measureNode, runPipeline } from './child.ts';
import { medianSeconds, report } from './report.ts';
import { writeWindowsLayer } from './windows-layer.ts';

const CHILD = fileURLToPath(new URL('./block-child.ts', import.meta.url));
/** GNU tar names each record it doesn't know, of which there are 300,000. */
const EXTRACT = 'mkdir "$2" && tar --warning=no-unknown-keyword -xf "$1" -C "$2"';
const DIGEST = 'openssl dgst -sha256 "$1"';

export async function run(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'cimlet-bench-block-'));
  try {
    const tar = join(directory, 'layer.tar');
    // The tar, a container or the extracted files, and something to spare.
    const layer = writeWindowsLayer(tar, directory, 2.5);
    const container = join(directory, 'layer.bcim');
    const extracted = join(directory, 'extracted');
    const megabytes = layer.bytes / 1e6;
    const label = `block: ${layer.files} files, ${Math.round(megabytes)} MB`;

    const digestSeconds = await medianSeconds(1, () => runPipeline(DIGEST, [tar]));
    const tarSeconds = await medianSeconds(1, () => runPipeline(EXTRACT, [tar, extracted]));
    rmSync(extracted, { recursive: true });
    for (const sealed of [false, true]) {
      const what = `${label}, ${sealed ? 'sealed' : 'unsealed'}`;
      const child = measureNode(CHILD, [tar, container, ...(sealed ? ['sealed'] : [])]);
      rmSync(container);
      const { files, total } = JSON.parse(child.stdout) as { files: number; total: number };
      if (files < layer.files) throw new Error(`${files} names written, ${layer.files} expected`);
      report({ case: what, value: total, unit: 's', peer: 'tar -xf', peerValue: tarSeconds });
      report({
        case: `${what}, data`,
        value: megabytes / total,
        unit: 'MB/s',
        peer: 'openssl dgst -sha256',
        peerValue: megabytes / digestSeconds,
      });
      report({
        case: `${what}, names`,
        value: files / total,
        unit: 'files/s',
        peer: 'tar -xf',
        peerValue: files / tarSeconds,
      });
      report({ case: `${what}, peak memory`, value: child.peakMiB, unit: 'MiB' });
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
