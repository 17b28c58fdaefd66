/** Debian's containerd with a root, state and socket of its own, for the time of a benchmark. */

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { runPipeline } from './child.ts';

export interface Containerd {
  /** Pulls and unpacks an image for Linux into overlayfs; returns the processor's seconds, ctr's and the daemon's. */
  pull(reference: string): number;
  stop(): Promise<void>;
}

export function hasContainerd(): boolean {
  return spawnSync('containerd', ['--version']).status === 0 && spawnSync('ctr', ['--version']).status === 0;
}

export async function startContainerd(directory: string): Promise<Containerd> {
  mkdirSync(directory, { recursive: true });
  const socket = join(directory, 'socket');
  const config = join(directory, 'config.toml');
  const lines = [
    'version = 2',
    `root = "${join(directory, 'root')}"`,
    `state = "${join(directory, 'state')}"`,
    'disabled_plugins = ["io.containerd.grpc.v1.cri"]',
    `[grpc]\naddress = "${socket}"`,
    `[ttrpc]\naddress = "${socket}.ttrpc"`,
  ];
  writeFileSync(config, `${lines.join('\n')}\n`);
  const log = join(directory, 'log');
  const child = spawn('containerd', ['--config', config], {
    stdio: ['ignore', 'ignore', openSync(log, 'w')],
  });
  const closed = once(child, 'close');
  for (let waited = 0; !existsSync(socket); waited++) {
    if (waited > 400 || child.exitCode !== null)
      throw new Error(`containerd did not start: ${readFileSync(log, 'utf8')}`);
    await setTimeout(50);
  }
  return {
    pull(reference) {
      const before = cpuSecondsOf(child.pid);
      const pull = 'ctr -a "$1" image pull --plain-http --platform linux/amd64 --snapshotter overlayfs "$2"';
      const own = runPipeline(pull, [socket, reference]);
      return own + cpuSecondsOf(child.pid) - before;
    },
    async stop() {
      child.kill('SIGTERM');
      await closed;
    },
  };
}

/** User and system time of a process, from /proc/<pid>/stat in ticks of 10 ms. */
function cpuSecondsOf(pid: number | undefined): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
