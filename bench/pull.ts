/**
 * Pulling images of 1 GB in 8 layers from a registry on this machine: into the blob store, durably, against skopeo copy to
 * a directory; and unpacked, applied as manifests, against skopeo and umoci, and against containerd with overlayfs.
 */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { measureNode, runPipeline } from './child.ts';
import { hasContainerd, startContainerd } from './containerd.ts';
import { installProgram } from './installed.ts';
import { FILES, LAYER_BYTES, LAYERS, writeFiles, writeNoise } from './pull-image.ts';
import { type BenchRegistry, pushLayout, startRegistry } from './registry.ts';
import { report, runsWanted } from './report.ts';

const LABEL = `${(LAYERS * LAYER_BYTES) / 1e6} MB, ${LAYERS} layers`;
const CHILD = fileURLToPath(new URL('./pull-child.ts', import.meta.url));

export async function run(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'cimlet-bench-pull-'));
  const registry = await startRegistry(directory);
  try {
    await copyOnly(directory, registry);
    const program = installProgram(join(directory, 'installed'));
    for (const [kind, sizes] of Object.entries(FILES))
      await unpacked(directory, registry, program, { kind, sizes });
  } finally {
    registry.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}

interface Run {
  seconds: number;
  cpuSeconds: number;
  peakMiB?: number;
}

async function copyOnly(directory: string, registry: BenchRegistry): Promise<void> {
  const layout = join(directory, 'layout');
  const reference = `${registry.host}/bench/noise:v1`;
  await writeNoise(layout);
  pushLayout(layout, 'v1', reference);
  rmSync(layout, { recursive: true });
  const target = join(directory, 'copy');
  const runs = await inTurns(target, {
    own: () => measureNode(CHILD, [reference, registry.configPath, target]),
    skopeo: () =>
      timed(() =>
        runPipeline('skopeo copy --quiet --src-tls-verify=false "docker://$1" "dir:$2"', [reference, target]),
      ),
  });
  compare(`pull: ${LABEL}`, runs.own, 'skopeo copy to dir', runs.skopeo);
  report({ case: `pull: ${LABEL}, peak memory`, value: peakOf(runs.own), unit: 'MiB' });
}

async function unpacked(
  directory: string,
  registry: BenchRegistry,
  program: string,
  { kind, sizes }: { kind: string; sizes: (index: number) => number },
): Promise<void> {
  const layout = join(directory, 'layout');
  const image = `${registry.host}/bench/${kind.replaceAll(' ', '-').toLowerCase()}`;
  await writeFiles(layout, sizes);
  for (const tag of ['v1', 'linux']) pushLayout(layout, tag, `${image}:${tag}`);
  rmSync(layout, { recursive: true });
  const manifest = join(directory, 'image.yaml');
  writeFileSync(manifest, manifestOf(`${image}:v1`));
  const target = join(directory, 'unpacked');
  const apply = ['apply', '-f', manifest, '--yes', '--root', target];
  const runs = await inTurns(target, {
    own: () => measureNode(program, [...apply, '--registry-config', registry.configPath]),
    umoci: () =>
      timed(() =>
        runPipeline(
          'skopeo copy --quiet --src-tls-verify=false "docker://$1" "oci:$2:v1" && umoci unpack --image "$2:v1" "$2/bundle"',
          [`${image}:linux`, target],
        ),
      ),
    ...(hasContainerd()
      ? {
          containerd: async () => {
            const containerd = await startContainerd(target);
            try {
              return timed(() => containerd.pull(`${image}:linux`));
            } finally {
              await containerd.stop();
            }
          },
        }
      : {}),
  });
  const label = `pull, unpacked: ${LABEL}, ${kind}`;
  compare(label, runs.own, 'skopeo copy + umoci unpack', runs.umoci);
  if (runs.containerd === undefined) console.log(`${label}: no containerd and ctr here to compare with`);
  else compare(label, runs.own, 'ctr image pull', runs.containerd);
  report({ case: `${label}, peak memory`, value: peakOf(runs.own), unit: 'MiB' });
}

function manifestOf(reference: string): string {
  return `apiVersion: cimlet.dev/v1alpha1
kind: Image
metadata: { name: bench }
spec: { source: { registry: "${reference}" }, platform: { os: windows, architecture: amd64 } }
---
apiVersion: cimlet.dev/v1alpha1
kind: LayerChain
metadata: { name: bench }
spec: { layers: [{ image: bench }], format: ForkedCIM }
`;
}

/** Each in turn, several times, so that whatever else the machine does weighs on all of them. `target` is theirs. */
async function inTurns(
  target: string,
  contestants: Record<string, () => Run | Promise<Run>>,
): Promise<Record<string, Run[]>> {
  const runs = Object.fromEntries(Object.keys(contestants).map((name) => [name, [] as Run[]]));
  for (let index = 0; index < runsWanted(3); index++) {
    for (const [name, run] of Object.entries(contestants)) {
      rmSync(target, { recursive: true, force: true });
      runs[name]?.push(await run());
      rmSync(target, { recursive: true, force: true });
    }
  }
  return runs;
}

function timed(run: () => number): Run {
  const start = performance.now();
  const cpuSeconds = run();
  return { seconds: (performance.now() - start) / 1000, cpuSeconds };
}

function compare(label: string, own: readonly Run[] = [], peer: string, peers: readonly Run[] = []): void {
  const figures = [
    ['', 'seconds'],
    [', processor', 'cpuSeconds'],
  ] as const;
  for (const [what, figure] of figures) {
    const middle = (runs: readonly Run[]) =>
      runs.map((run) => run[figure]).sort((a, b) => a - b)[Math.floor(runs.length / 2)] ?? Number.NaN;
    report({ case: `${label}${what}`, value: middle(own), unit: 's', peer, peerValue: middle(peers) });
  }
}

function peakOf(runs: readonly Run[] = []): number {
  return Math.max(...runs.map(({ peakMiB = Number.NaN }) => peakMiB));
}
