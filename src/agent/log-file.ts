/** A log in a file, for an agent whose output nobody sees. It can't fill a disk, and a full disk doesn't end the agent. */

import {
  closeSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { classify } from '../errors.ts';

export interface LogFileOptions {
  /** A file that would grow beyond it is put aside. */
  maxBytes?: number;
  /** Files put aside that are kept: `<path>.1`, the latest one, and so on. */
  keep?: number;
}

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
    const text = this.#lost === 0 ? line : `${lostLines(this.#lost)}${line}`;
    const bytes = Buffer.from(text);
    try {
      if (this.#size > 0 && this.#size + bytes.length > this.#maxBytes) this.#turnOver();
      this.#append(bytes);
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

  #open(flags = 'a'): number {
    this.#file = openSync(this.#path, flags, 0o640);
    this.#size = fstatSync(this.#file).size;
    return this.#file;
  }

  #append(bytes: Uint8Array): void {
    const file = this.#file ?? this.#open();
    try {
      for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done);
      this.#size += bytes.length;
    } catch (error) {
      // The disk took a part of it.
      ftruncateSync(file, this.#size);
      throw error;
    }
  }

  #turnOver(): void {
    this.close();
    try {
      rmSync(`${this.#path}.${this.#keep}`, { force: true });
      for (let number = this.#keep; number > 0; number--) {
        const from = number === 1 ? this.#path : `${this.#path}.${number - 1}`;
        renameIfAny(from, `${this.#path}.${number}`);
      }
    } catch {
      // Somebody has one of them open, and Windows renames nothing that is: this one begins anew rather than grow.
      this.#open('w');
    }
  }
}

function lostLines(count: number): string {
  const line = {
    level: 40,
    time: Date.now(),
    name: 'cimlet',
    msg: `${count} lines could not be written here`,
  };
  return `${JSON.stringify(line)}\n`;
}

function renameIfAny(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
