/** Debian's docker-registry on this machine, for the time of a benchmark. */

import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { runPipeline } from './child.ts';

export interface BenchRegistry {
  /** `127.0.0.1:port`. */
  host: string;
  /** A certs.d that says that it speaks plain HTTP. */
  configPath: string;
  stop: () => void;
}

/** Pushes an image of a layout as it is. */
export function pushLayout(layout: string, tag: string, reference: string): void {
  const copy = 'skopeo copy --quiet --preserve-digests --dest-tls-verify=false "oci:$1:$2" "docker://$3"';
  runPipeline(copy, [layout, tag, reference]);
}

export async function startRegistry(directory: string): Promise<BenchRegistry> {
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
    if (port === undefined) {
      await setTimeout(50);
      continue;
    }
    const host = `127.0.0.1:${port}`;
    const configPath = join(directory, 'certs.d');
    mkdirSync(join(configPath, host), { recursive: true });
    writeFileSync(join(configPath, host, 'hosts.toml'), `server = "http://${host}"\n`);
    return { host, configPath, stop: () => child.kill('SIGKILL') };
  }
  child.kill('SIGKILL');
  throw new Error(`docker-registry did not start: ${readFileSync(log, 'utf8')}`);
}
