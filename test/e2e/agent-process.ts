/** `cimlet agent` as a process, and what it logs. */

import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { COMPILE_CACHE, MAIN } from '../support/program.ts';

interface Line {
  level: number;
  msg: string;
  action?: string;
  port?: number;
  isHeeded?: boolean;
}

export class AgentProcess {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: Line[] = [];
  readonly #ended: Promise<number | null>;
  #check: () => void = () => undefined;
  #stderr = '';

  /** `wrapper`: a program with its arguments that runs it. */
  constructor(args: string[], env: NodeJS.ProcessEnv = {}, wrapper: string[] = []) {
    const [program = '', ...rest] = [...wrapper, process.execPath, MAIN, 'agent', ...args];
    this.#child = spawn(program, rest, {
      env: { ...process.env, NODE_COMPILE_CACHE: COMPILE_CACHE, ...env },
    });
    this.#child.stderr.on('data', (chunk: Buffer) => {
      this.#stderr += chunk.toString();
    });
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      this.#lines.push(JSON.parse(line) as Line);
      this.#check();
    });
    this.#ended = new Promise((resolve) => this.#child.on('close', resolve));
  }

  /** Resolves with the first line like this that was logged since the last call. */
  async until(message: string, action?: string): Promise<Line> {
    const arrived = new Promise<Line>((resolve) => {
      this.#check = () => {
        const at = this.#lines.findIndex(
          (line) => line.msg.includes(message) && (action === undefined || line.action === action),
        );
        if (at < 0) return;
        const line = this.#lines.splice(0, at + 1).at(-1);
        this.#check = () => undefined;
        if (line !== undefined) resolve(line);
      };
    });
    this.#check();
    const first = await Promise.race([arrived, this.#ended]);
    if (first !== null && typeof first === 'object') return first;
    throw new Error(`the agent ended with ${first}: ${this.#stderr}`);
  }

  async end(signal: NodeJS.Signals): Promise<number | null> {
    this.#child.kill(signal);
    return this.#ended;
  }
}
