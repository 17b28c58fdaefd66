import { writeSync } from 'node:fs';

const BUFFER_SIZE = 256 * 1024;

/** Writes forward from `position` through a buffer, so that parts of one file can each be written in their own order. */
export class SequentialWriter {
  readonly #fd: number;
  readonly #buffer = Buffer.allocUnsafe(BUFFER_SIZE);
  #start: number;
  #used = 0;

  constructor(fd: number, position: number) {
    this.#fd = fd;
    this.#start = position;
  }

  /** Where the next byte goes. */
  get position(): number {
    return this.#start + this.#used;
  }

  write(bytes: Uint8Array): void {
    if (bytes.length > this.#buffer.length - this.#used) this.flush();
    if (bytes.length > this.#buffer.length) {
      this.#store(bytes);
    } else {
      this.#buffer.set(bytes, this.#used);
      this.#used += bytes.length;
    }
  }

  /** Fills with zeros up to `position`. */
  zeroUntil(position: number): void {
    let missing = position - this.position;
    if (missing < 0) throw new Error(`writer is at ${this.position}, past ${position}`);
    while (missing > 0) {
      if (this.#used === this.#buffer.length) this.flush();
      const count = Math.min(missing, this.#buffer.length - this.#used);
      this.#buffer.fill(0, this.#used, this.#used + count);
      this.#used += count;
      missing -= count;
    }
  }

  flush(): void {
    this.#store(this.#buffer.subarray(0, this.#used));
    this.#used = 0;
  }

  #store(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; )
      done += writeSync(this.#fd, bytes, done, bytes.length - done, this.#start + done);
    this.#start += bytes.length;
  }
}
