/** Runs git: no shell, nothing of the user's or the system's configuration, and never more output than asked for. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { CimletError, classify } from '../errors.ts';
import { describeGitFailure, redact } from './git-errors.ts';

export interface GitSettings {
  /** Where git runs; no repository. */
  directory: string;
  /** The whole environment. */
  environment: Record<string, string>;
  /** What must not appear in any message. */
  secrets: readonly string[];
}

export interface GitCall {
  /** Another program with the same environment. */
  program?: 'git' | 'gpg';
  args: readonly string[];
  /** What is being done, for errors: "fetch main of https://…". */
  operation: string;
  signal: AbortSignal;
  /** For standard input. */
  input?: string | Buffer;
  environment?: Record<string, string>;
}

export interface GitResult {
  code: number;
  stdout: Buffer;
  stderr: string;
}

const MOST_OUTPUT = 64 * 1024 * 1024;
const MOST_STDERR = 16 * 1024;
/** Milliseconds that git has to take its helpers down with it. */
const GRACE = 5000;

export class Git {
  readonly #settings: GitSettings;

  constructor(settings: GitSettings) {
    this.#settings = settings;
  }

  /** Standard output; throws as its messages say (see git-errors.ts), `invalid-manifest` beyond 64 MiB. */
  async run(call: GitCall): Promise<Buffer> {
    const { code, stdout, stderr } = await this.attempt(call);
    if (code !== 0) throw describeGitFailure(call.operation, stderr);
    return stdout;
  }

  /** As `run`, for a git whose failing is an answer. */
  async attempt(call: GitCall): Promise<GitResult> {
    const chunks: Buffer[] = [];
    let total = 0;
    const result = await this.#execute(call, async (stdout) => {
      for await (const chunk of stdout) {
        total += (chunk as Buffer).length;
        if (total > MOST_OUTPUT) {
          throw new CimletError(
            'invalid-manifest',
            `${call.operation}: more than cimlet reads of a repository`,
            {
              hint: 'take a smaller part of it with path, include and ignore',
            },
          );
        }
        chunks.push(chunk as Buffer);
      }
    });
    return { ...result, stdout: Buffer.concat(chunks) };
  }

  /** Gives standard output to `consume` as it comes; throws as `run`, or what `consume` throws. */
  async stream(call: GitCall, consume: (stdout: Readable) => Promise<void>): Promise<void> {
    const { code, stderr } = await this.#execute(call, consume);
    if (code !== 0) throw describeGitFailure(call.operation, stderr);
  }

  async #execute(
    { program = 'git', args, operation, signal, input = '', environment }: GitCall,
    consume: (stdout: Readable) => Promise<void>,
  ): Promise<{ code: number; stderr: string }> {
    signal.throwIfAborted();
    const child = spawn(program, args, {
      cwd: this.#settings.directory,
      env: { ...this.#settings.environment, ...environment },
      stdio: 'pipe',
      windowsHide: true,
    });
    const closed = once(child, 'close').catch((error: unknown) => {
      throw notRunnable(error, program, operation);
    });
    let stderr = '';
    child.stderr.on('data', (chunk: Buffer) => {
      stderr = (stderr + chunk.toString()).slice(-MOST_STDERR);
    });
    // A git that ends without reading its input says why itself.
    child.stdin.on('error', () => child.stdin.destroy());
    child.stdin.end(input);

    let killing: NodeJS.Timeout | undefined;
    const kill = (): void => {
      child.kill('SIGTERM');
      killing ??= setTimeout(() => child.kill('SIGKILL'), GRACE);
      // A helper that outlives git would hold its pipes open.
      child.once('exit', () => {
        child.stdout.destroy();
        child.stderr.destroy();
      });
    };
    signal.addEventListener('abort', kill);
    try {
      const [consumed] = await Promise.allSettled([
        consume(child.stdout).catch((error: unknown) => {
          kill();
          throw error;
        }),
        closed,
      ]);
      const [code, killedBy] = (await closed) as [number | null, NodeJS.Signals | null];
      signal.throwIfAborted();
      if (consumed.status === 'rejected') throw consumed.reason;
      if (killedBy !== null) stderr += `\nerror: ${program} was killed (${killedBy})`;
      return { code: code ?? -1, stderr: redact(stderr, this.#settings.secrets) };
    } finally {
      signal.removeEventListener('abort', kill);
      clearTimeout(killing);
    }
  }
}

function notRunnable(error: unknown, program: 'git' | 'gpg', operation: string): unknown {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') return classify(error, operation);
  const what = program === 'git' ? 'git 2.34 or later' : 'GnuPG';
  return new CimletError('unsupported-host', `${operation}: this machine has no ${program}`, {
    hint: `install ${what}, on the PATH of the user that cimlet runs as`,
    cause: error,
  });
}
