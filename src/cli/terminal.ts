/** The program's streams, and what is known about them. The only place that writes to them. */

import type { Readable, Writable } from 'node:stream';
import { createPaint, type Paint } from './text.ts';

export interface Terminal {
  readonly stdin: Readable;
  readonly stdout: Writable;
  readonly stderr: Writable;
  /** Somebody can be asked: standard input is a terminal. */
  readonly interactive: boolean;
  /** Standard output is a terminal that can move its cursor, and somebody looks at it: CI keeps what is printed. */
  readonly live: boolean;
  /** Columns to format for; 80 where the output is no terminal. */
  readonly width: number;
  /** What a table may take: no bound where the output is no terminal, so that nothing is lost to who reads it. */
  readonly tableWidth: number;
  readonly rows: number;
  readonly paint: Paint;
  /** For standard error, which may be a terminal when standard output is none. */
  readonly paintError: Paint;
  /** The reader of standard output has gone (`| head`): what streams output may stop; work must go on. */
  readonly closed: boolean;
  /** Writes a line, or lines, to standard output. */
  print(lines: string | readonly string[]): void;
  /** Writes a line, or lines, to standard error. */
  printError(lines: string | readonly string[]): void;
  /** Writes bytes to standard output and waits until they are taken. */
  write(data: Uint8Array | string): Promise<void>;
}

export interface TerminalOptions {
  env: NodeJS.ProcessEnv;
  /** False for `--no-color`. */
  color: boolean;
}

/** Colour needs a terminal, no NO_COLOR (https://no-color.org: set and not empty), and no `--no-color`. */
export function openTerminal(options: TerminalOptions): Terminal {
  const { stdin, stdout, stderr } = process;
  const { env } = options;
  const colorWanted = options.color && !env.NO_COLOR && env.TERM !== 'dumb';
  const paint = createPaint(colorWanted && stdout.isTTY === true);
  const paintError = createPaint(colorWanted && stderr.isTTY === true);
  let closed = false;
  const onError = (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
    closed = true;
  };
  stdout.on('error', onError);
  stderr.on('error', onError);
  const knownWidth = () => {
    if (stdout.isTTY) return stdout.columns || 80;
    const forced = Number(env.COLUMNS);
    return Number.isInteger(forced) && forced >= 40 ? forced : undefined;
  };
  return {
    stdin,
    stdout,
    stderr,
    interactive: stdin.isTTY === true,
    live: stdout.isTTY === true && env.TERM !== 'dumb' && !env.CI,
    get width() {
      return knownWidth() ?? 80;
    },
    get tableWidth() {
      return knownWidth() ?? Number.POSITIVE_INFINITY;
    },
    get rows() {
      return stdout.rows || 24;
    },
    paint,
    paintError,
    get closed() {
      return closed;
    },
    print(lines) {
      if (!closed && !isNothing(lines)) stdout.write(asText(lines));
    },
    printError(lines) {
      if (!isNothing(lines)) stderr.write(asText(lines));
    },
    async write(data) {
      if (closed) return;
      await new Promise<void>((resolve) => {
        // A failed write also arrives as an 'error' event, which decides what it means.
        stdout.write(data, () => resolve());
      });
    },
  };
}

/** No lines at all, which is not the same as an empty one. */
function isNothing(lines: string | readonly string[]): boolean {
  return typeof lines !== 'string' && lines.length === 0;
}

function asText(lines: string | readonly string[]): string {
  return `${typeof lines === 'string' ? lines : lines.join('\n')}\n`;
}
