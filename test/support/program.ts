/** Runs the real program as a process, the way a user does. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';

export const MAIN = resolve(import.meta.dirname, '../../src/main.ts');
/** What V8 compiled, kept for all programs of all tests. */
export const COMPILE_CACHE = resolve(import.meta.dirname, '../../node_modules/.cache/cimlet-tests');

export interface ProgramResult {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface ProgramOptions {
  cwd?: string;
  env?: Record<string, string>;
  input?: string;
  signal?: AbortSignal;
}

/** `cimlet <args>` on the Node that runs the tests; never rejects for a non-zero exit. */
export function runProgram(args: readonly string[], options: ProgramOptions = {}): Promise<ProgramResult> {
  return new Promise((resolvePromise, reject) => {
    const child = spawn(process.execPath, [MAIN, ...args], {
      cwd: options.cwd,
      env: { ...process.env, NODE_COMPILE_CACHE: COMPILE_CACHE, NO_COLOR: '1', ...options.env },
      signal: options.signal,
      killSignal: 'SIGKILL',
    });
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
    child.on('error', reject);
    child.on('close', (code) =>
      resolvePromise({
        code,
        stdout: Buffer.concat(stdout).toString(),
        stderr: Buffer.concat(stderr).toString(),
      }),
    );
    child.stdin.end(options.input ?? '');
  });
}

/** As `runProgram`, and fails the test with both streams when the exit code isn't the one expected. */
export async function expectProgram(
  args: readonly string[],
  code = 0,
  options: ProgramOptions = {},
): Promise<ProgramResult> {
  const result = await runProgram(args, options);
  if (result.code !== code) {
    throw new Error(
      `cimlet ${args.join(' ')}: exit ${result.code}, expected ${code}\n${result.stdout}\n${result.stderr}`,
    );
  }
  return result;
}

export interface BackgroundProgram {
  /** Asks it to stop; resolves with its exit code. */
  stop(): Promise<number | null>;
}

/** `cimlet <args>` that goes on by itself; resolves once it has printed something. */
export async function startProgram(
  args: readonly string[],
  options: Pick<ProgramOptions, 'cwd'> = {},
): Promise<BackgroundProgram> {
  const child = spawn(process.execPath, [MAIN, ...args], {
    cwd: options.cwd,
    env: { ...process.env, NODE_COMPILE_CACHE: COMPILE_CACHE },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(child, 'close').then(([code]: (number | null)[]) => code ?? null);
  child.stdout.resume();
  await Promise.race([once(child.stdout, 'data'), ended]);
  return {
    stop: () => {
      child.kill('SIGTERM');
      return ended;
    },
  };
}
