/** The agent of a chaos run, in a process of its own. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { COMPILE_CACHE } from '../support/program.ts';

const ENTRY = join(import.meta.dirname, 'doomed-agent.ts');

export class AgentProcess {
  readonly #config: string;
  /** See doomed-agent.ts. */
  readonly #dieAt: string;
  readonly #environment: Record<string, string>;
  #child: ChildProcess | undefined;
  #lines: string[] = [];

  constructor(config: string, environment: Record<string, string>) {
    this.#config = config;
    this.#dieAt = `${config}.die-at`;
    this.#environment = environment;
    this.spare();
  }

  get isRunning(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Of an agent that ended by itself. */
  get exitCode(): number | undefined {
    return this.#child?.exitCode ?? undefined;
  }

  /** What it said last. */
  get log(): string {
    return this.#lines.slice(-40).join('\n');
  }

  start(): void {
    const child = spawn(process.execPath, [ENTRY, 'agent', '--config', this.#config], {
      env: {
        ...process.env,
        ...this.#environment,
        NODE_COMPILE_CACHE: COMPILE_CACHE,
        CIMLET_DIE_AT: this.#dieAt,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        this.#lines.push(...chunk.toString().trimEnd().split('\n'));
        this.#lines = this.#lines.slice(-200);
      });
    }
    this.#child = child;
  }

  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'close');
    child.kill('SIGKILL');
    await ended;
  }

  /** From now on, and in those that are started, it dies when it comes there. */
  doom(transition: string): void {
    writeFileSync(this.#dieAt, transition);
  }

  spare(): void {
    writeFileSync(this.#dieAt, '');
  }
}
