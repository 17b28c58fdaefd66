/** Runs the real program as a process. */

import { spawn } from 'node:child_process';
import { resolve } from 'node:path';

const REPOSITORY = resolve(import.meta.dirname, '../..');

/** The Node versions cimlet supports, as the repository's own dependencies bring them. */
export const NODES = {
  'node 24': resolve(REPOSITORY, 'node_modules/node/bin/node'),
  'node 22': resolve(REPOSITORY, 'node_modules/node-22/bin/node'),
};

export interface RunOptions {
  /** Standard input; nothing when absent. */
  input?: string;
  env?: NodeJS.ProcessEnv;
  node?: string;
  cwd?: string;
  /** The launcher; the repository's own unless told. */
  launcher?: string;
}

export interface RunResult {
  code: number | null;
  stdout: string;
  stderr: string;
}

export async function runCimlet(args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const { NO_COLOR: _noColor, CIMLET_ROOT: _root, COLUMNS: _columns, ...env } = process.env;
  const child = spawn(
    options.node ?? process.execPath,
    [options.launcher ?? resolve(REPOSITORY, 'bin/cimlet.cjs'), ...args],
    { cwd: options.cwd ?? REPOSITORY, env: { ...env, ...options.env } },
  );
  const result: RunResult = { code: null, stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text) => {
    result.stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text) => {
    result.stderr += text;
  });
  child.stdin.end(options.input ?? '');
  return new Promise((done, fail) => {
    child.once('error', fail);
    child.once('close', (code) => done({ ...result, code }));
  });
}
