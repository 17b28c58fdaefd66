/** Pulling an image of 1 GB in 8 layers from a registry on this machine, durably, against skopeo copy to a directory. */

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { writeOciLayout } from '../src/images/layout-writer.ts';
import { measureNode, runPipeline } from './child.ts';
import { report } from './report.ts';

const LAYERS = 8;
const LAYER_BYTES = 125_000_000;
const RUNS = 3;

export async function run(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'cimlet-bench-pull-'));
  const registry = await startRegistry(directory);
  try {
    const reference = `${registry.host}/bench/image:v1`;
    await pushImage(directory, reference);
    const configPath = join(directory, 'certs.d');
    mkdirSync(join(configPath, registry.host), { recursive: true });
    writeFileSync(join(configPath, registry.host, 'hosts.toml'), `server = "http://${registry.host}"\n`);
    const child = new URL('./pull-child.ts', import.meta.url).pathname;
    const own: number[] = [];
    const peer: number[] = [];
    const peaks: number[] = [];
    // In turns, so that whatever else the machine does weighs on both.
    for (let index = 0; index < RUNS; index++) {
      const target = join(directory, 'skopeo');
      const start = performance.now();
      runPipeline('skopeo copy --quiet --src-tls-verify=false "docker://$1" "dir:$2"', [reference, target]);
      peer.push((performance.now() - start) / 1000);
      rmSync(target, { recursive: true });

      const root = join(directory, 'root');
      const measured = measureNode(child, [reference, configPath, root]);
      own.push(measured.seconds);
      peaks.push(measured.peakMiB);
      rmSync(root, { recursive: true });
    }
    const megabytes = (LAYERS * LAYER_BYTES) / 1e6;
    const label = `pull: ${megabytes} MB, ${LAYERS} layers`;
    report({
      case: label,
      value: middle(own),
      unit: 's',
      peer: 'skopeo copy to dir',
      peerValue: middle(peer),
    });
    report({ case: `${label}, peak memory`, value: Math.max(...peaks), unit: 'MiB' });
  } finally {
    registry.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}

function middle(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

/** Nothing that either program could compress, and never much of it in memory: programs started here count that as theirs. */
function* noise(): Generator<Uint8Array> {
  for (let done = 0; done < LAYER_BYTES; done += 1_000_000) yield randomBytes(1_000_000);
}

async function pushImage(directory: string, reference: string): Promise<void> {
  const layout = join(directory, 'layout');
  const layers = Array.from({ length: LAYERS }, () => ({
    tar: noise(),
    compression: 'none' as const,
  }));
  await writeOciLayout(layout, { layers, platform: { os: 'windows', architecture: 'amd64' }, ref: 'v1' });
  const copy = 'skopeo copy --quiet --preserve-digests --dest-tls-verify=false "oci:$1:v1" "docker://$2"';
  runPipeline(copy, [layout, reference]);
  rmSync(layout, { recursive: true });
}

async function startRegistry(directory: string): Promise<{ host: string; stop: () => void }> {
  const config = join(directory, 'config.yml');
  const content = {
    version: 0.1,
    log: { level: 'info', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: join(directory, 'data') } },
    http: { addr: '127.0.0.1:0' },
  };
  // JSON is YAML.
  writeFileSync(config, JSON.stringify(content));
  // To a file: while other programs are measured, nobody here would read a pipe.
  const log = join(directory, 'registry.log');
  const descriptor = openSync(log, 'w');
  const env = { PATH: process.env.PATH, OTEL_TRACES_EXPORTER: 'none' };
  const child = spawn('docker-registry', ['serve', config], { stdio: ['ignore', 'ignore', descriptor], env });
  closeSync(descriptor);
  for (let waited = 0; waited < 200; waited++) {
    const port = /listening on 127\.0\.0\.1:(\d+)/.exec(readFileSync(log, 'utf8'))?.[1];
    if (port !== undefined) return { host: `127.0.0.1:${port}`, stop: () => child.kill('SIGKILL') };
    await setTimeout(50);
  }
  child.kill('SIGKILL');
  throw new Error(`docker-registry did not start: ${readFileSync(log, 'utf8')}`);
}
