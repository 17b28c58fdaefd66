/** A log in a file, for an agent whose output nobody sees. It can't fill a disk, and a full disk doesn't end the agent. */

import {
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { classify } from '../errors.ts';

export interface LogFileOptions {
  /** A file that would grow beyond it is put aside; one that can't be begins anew at twice of it. */
  maxBytes?: number;
  /** Files put aside that are kept, at least one: `<path>.1`, the latest one, and so on. */
  keep?: number;
}

const NEWLINE = 0x0a;

export class LogFile {
  readonly #path: string;
  readonly #maxBytes: number;
  readonly #keep: number;
  #file: number | undefined;
  #size = 0;
  #lost = 0;

  /** Goes on with a file that is there. Throws when it can't be opened. */
  constructor(path: string, { maxBytes = 10 * 2 ** 20, keep = 4 }: LogFileOptions = {}) {
    this.#path = path;
    this.#maxBytes = maxBytes;
    this.#keep = keep;
    try {
      mkdirSync(dirname(path), { recursive: true });
      this.#open();
    } catch (error) {
      throw classify(error, `open the log ${path}`);
    }
  }

  /** A line of JSON with its end. In the file when this returns; one that can't be written is counted, and told later. */
  write(line: string): void {
    try {
      if (this.#size > 0 && this.#size + Buffer.byteLength(line) > this.#maxBytes) this.#turnOver();
      this.#append(Buffer.from(this.#lost === 0 ? line : `${linesMissing(this.#lost)}${line}`));
      this.#lost = 0;
    } catch {
      // There is nowhere else to say it.
      this.#lost++;
    }
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  #open(): number {
    this.#file = openSync(this.#path, 'a', 0o640);
    this.#size = fstatSync(this.#file).size;
    return this.#file;
  }

  #append(bytes: Uint8Array): void {
    const file = this.#file ?? this.#open();
    try {
      for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done);
      this.#size += bytes.length;
    } catch (error) {
      // The disk took a part of it. Cut by its path: what is open to append to can't be cut on Windows.
      if (statSync(this.#path).size > this.#size) truncateSync(this.#path, this.#size);
      throw error;
    }
  }

  #turnOver(): void {
    try {
      this.#putAside(0);
      this.close();
    } catch {
      // Somebody has one of them open, and Windows renames nothing that is: tried again with each line.
      if (this.#size < 2 * this.#maxBytes) return;
      const lines = countLines(readFileSync(this.#path));
      truncateSync(this.#path);
      this.#lost += lines;
      this.#size = 0;
    }
  }

  /** Gives a file, if it is there, the next one's name; the last one goes. No file is moved but to make way. */
  #putAside(number: number): void {
    const path = this.#nameOf(number);
    if (!existsSync(path)) return;
    if (number === this.#keep) rmSync(path);
    else {
      this.#putAside(number + 1);
      renameSync(path, this.#nameOf(number + 1));
    }
  }

  /** 0 is the one that is written. */
  #nameOf(number: number): string {
    return number === 0 ? this.#path : `${this.#path}.${number}`;
  }
}

function linesMissing(count: number): string {
  const line = {
    level: 40,
    time: Date.now(),
    name: 'cimlet',
    msg: `lines missing here: ${count}`,
  };
  return `${JSON.stringify(line)}\n`;
}

function countLines(text: Buffer): number {
  let count = 0;
  for (let end = text.indexOf(NEWLINE); end !== -1; end = text.indexOf(NEWLINE, end + 1)) count++;
  return count;
}
