/** An agent in a process of its own, seen by what it logs and what the kernel says of it. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** Built if `npm run build` was run, else from sources, which takes some 30 MiB more. */
export const PROGRAM = fileURLToPath(new URL('../bin/cimlet.cjs', import.meta.url));

export interface LogLine {
  msg: string;
  action?: string;
}

export class RunningAgent {
  readonly #child: ChildProcess;
  readonly #lines: LogLine[] = [];
  #arrived: () => void = () => undefined;
  #stderr = '';

  /** The configuration must say `logLevel: debug`. */
  constructor(config: string) {
    this.#child = spawn(process.execPath, [PROGRAM, 'agent', '--config', config], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const { stdout, stderr } = this.#child;
    if (stdout === null || stderr === null) throw new Error('its output is piped');
    createInterface({ input: stdout }).on('line', (line) => {
      this.#lines.push(JSON.parse(line) as LogLine);
      this.#arrived();
    });
    stderr.on('data', (chunk: Buffer) => {
      this.#stderr += chunk.toString();
    });
    this.#child.on('close', () => this.#arrived());
  }

  /** The first line like this since the last that was waited for. */
  async until(isWanted: (line: LogLine) => boolean): Promise<LogLine> {
    for (;;) {
      const at = this.#lines.findIndex(isWanted);
      const found = this.#lines[at];
      if (found !== undefined) {
        this.#lines.splice(0, at + 1);
        return found;
      }
      if (this.#child.exitCode !== null) throw new Error(`the agent ended: ${this.#stderr}`);
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#arrived = resolve;
      await promise;
    }
  }

  /** A revision is in force, and the round that it caused is done. */
  async untilReconciled(): Promise<void> {
    await this.until(({ msg }) => msg === 'new revision');
    await this.untilRound();
  }

  async untilRound(): Promise<void> {
    await this.until(({ msg }) => msg === 'round done');
  }

  /** User and system time so far. */
  cpuSeconds(): number {
    const fields = this.#read('stat').split(') ')[1]?.split(' ') ?? [];
    const ticksPerSecond = 100;
    return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
  }

  /** Waits until it has had nothing to do for a while; what it said so far is forgotten. */
  async untilQuiet(): Promise<void> {
    for (let used = -1; this.cpuSeconds() - used > 0.1; ) {
      used = this.cpuSeconds();
      await pause(4000);
    }
    this.#lines.length = 0;
  }

  residentMiB(): number {
    return Number(/VmRSS:\s+(\d+) kB/.exec(this.#read('status'))?.[1]) / 1024;
  }

  #read(name: string): string {
    return readFileSync(`/proc/${this.#child.pid}/${name}`, 'utf8');
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const ended = once(this.#child, 'close');
    this.#child.kill('SIGTERM');
    await ended;
  }
}

export async function withAgent(
  directory: string,
  source: string,
  use: (agent: RunningAgent) => Promise<void>,
): Promise<void> {
  const config = join(directory, 'cimlet.yaml');
  // Nothing is looked at but what a case asks for: Terraform may take longer than the agent's interval.
  const text = `root: root\nlogLevel: debug\nintervals: {resync: 24h}\nsources: [${source}]\n`;
  writeFileSync(config, text);
  const agent = new RunningAgent(config);
  try {
    await use(agent);
  } finally {
    await agent.stop();
  }
}

export function makeFolder(directory: string, name: string): string {
  const folder = join(directory, name);
  mkdirSync(folder);
  return folder;
}

/** As editors save. */
export function replace(file: string, text: string): void {
  writeFileSync(`${file}.new`, text);
  renameSync(`${file}.new`, file);
}
