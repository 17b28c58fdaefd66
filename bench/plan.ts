/** The whole `plan` command from many files, and the pure plan inside it. */

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { measureNode } from './child.ts';
import { writeSmallImage } from './fixtures.ts';
import { report } from './report.ts';

const MAIN = fileURLToPath(new URL('../src/main.ts', import.meta.url));
const PURE = fileURLToPath(new URL('./plan-pure.ts', import.meta.url));

export async function run(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'cimlet-bench-plan-'));
  try {
    await writeSmallImage(join(directory, 'image'));
    const whole = new Map<number, { seconds: number; peakMiB: number }>();
    for (const count of [1_000, 10_000]) {
      const manifests = join(directory, `manifests-${count}`);
      writeManifests(manifests, count);
      const args = ['plan', '-f', manifests, '--root', join(directory, 'root'), '-o', 'json'];
      whole.set(count, measureNode(MAIN, args));
      const pure = JSON.parse(measureNode(PURE, [manifests]).stdout) as { seconds: number };
      report({ case: `plan: pure, ${count} resources`, value: pure.seconds, unit: 's' });
    }
    const small = whole.get(1_000);
    for (const [count, { seconds, peakMiB }] of whole) {
      const peer =
        count === 1_000 || small === undefined
          ? {}
          : { peer: '10 x 1000 files', peerValue: small.seconds * 10 };
      report({ case: `plan: whole command, ${count} files`, value: seconds, unit: 's', ...peer });
      report({ case: `plan: peak memory, ${count} files`, value: peakMiB, unit: 'MiB' });
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** A fifth images, two fifths chains, two fifths mounts: each file one resource, names and paths distinct. */
function writeManifests(directory: string, count: number): void {
  mkdirSync(directory);
  const header = 'apiVersion: cimlet.dev/v1alpha1\n';
  for (let index = 0; index < count; index++) {
    const group = Math.floor(index / 5);
    const part = index % 5;
    const chain = `chain-${group}-${part % 2}`;
    const text =
      part === 0
        ? `kind: Image\nmetadata: {name: image-${group}}\nspec:\n  source: {ociLayout: ../image}\n`
        : part <= 2
          ? `kind: LayerChain\nmetadata:\n  name: ${chain}\n  labels: {group: "${group}"}\nspec:\n  format: ForkedCIM\n  layers:\n    - image: image-${group}\n`
          : `kind: Mount\nmetadata: {name: mount-${group}-${part}}\nspec:\n  chain: ${chain}\n  path: /mnt/bench/${group}/${part}\n`;
    writeFileSync(join(directory, `${String(index).padStart(5, '0')}.yaml`), header + text);
  }
}
