/** The stream a writer hands out: takes exactly the declared bytes, stores them once, and reports where they are. */

import { CimletError } from '../errors.ts';
import { PAGE_SIZE, RegionType, type StreamRecord, StreamType } from './format.ts';
import { Digester, digestOf } from './object-ids.ts';
import type { ObjectStore } from './object-store.ts';
import type { CimStream } from './types.ts';

const ZEROS = Buffer.alloc(64 * 1024);

function isZero(data: Uint8Array): boolean {
  if (data.length > 0 && data[0] !== 0) return false;
  for (let done = 0; done < data.length; done += ZEROS.length) {
    const part = data.subarray(done, done + ZEROS.length);
    if (ZEROS.compare(part, 0, part.length, 0, part.length) !== 0) return false;
  }
  return true;
}

/** Stores a stream's bytes as they come. */
interface Sink {
  write(data: Uint8Array): void;
  finish(): StreamRecord;
}

export class DataStream implements CimStream {
  readonly #operation: string;
  readonly #size: number;
  readonly #sink: Sink;
  readonly #done: (stream: StreamRecord) => void;
  #written = 0;
  #closed = false;

  /** `operation` starts the errors' texts; `done` is told where the data is once the stream is closed. */
  constructor(store: ObjectStore, operation: string, size: number, done: (stream: StreamRecord) => void) {
    this.#operation = operation;
    this.#size = size;
    this.#sink = size < PAGE_SIZE ? new SmallSink(store, size) : new LargeSink(store, size);
    this.#done = done;
  }

  write(data: Uint8Array): void {
    if (this.#closed)
      throw new CimletError('failed-precondition', `${this.#operation}: the stream is closed`);
    if (this.#written + data.length > this.#size)
      throw new CimletError('corrupt', `${this.#operation}: more bytes than the ${this.#size} declared`);
    this.#written += data.length;
    if (data.length > 0) this.#sink.write(data);
  }

  close(): void {
    if (this.#closed) return;
    if (this.#written !== this.#size)
      throw new CimletError(
        'corrupt',
        `${this.#operation}: ${this.#written} bytes written, ${this.#size} declared`,
      );
    this.#closed = true;
    this.#done(this.#sink.finish());
  }
}

/** Under a page: held until complete. */
class SmallSink implements Sink {
  readonly #store: ObjectStore;
  readonly #data: Buffer;
  #filled = 0;

  constructor(store: ObjectStore, size: number) {
    this.#store = store;
    this.#data = store.scratch.subarray(0, size);
  }

  write(data: Uint8Array): void {
    this.#data.set(data, this.#filled);
    this.#filled += data.length;
  }

  finish(): StreamRecord {
    const size = this.#data.length;
    const at = size === 0 ? undefined : this.#store.put(RegionType.smallData, this.#data);
    return { at, size, type: StreamType.data, sparse: false };
  }
}

/** A page and more: written on as it comes, and taken back when it turns out to be known. Only zeros: not written. */
class LargeSink implements Sink {
  readonly #store: ObjectStore;
  readonly #size: number;
  readonly #start: number;
  #zeros = 0;
  #digester: Digester | undefined;
  #digest: Buffer | undefined;

  constructor(store: ObjectStore, size: number) {
    this.#store = store;
    this.#size = size;
    this.#start = store.region(RegionType.data).align(PAGE_SIZE);
  }

  write(data: Uint8Array): void {
    if (this.#digester === undefined && isZero(data)) {
      this.#zeros += data.length;
      return;
    }
    if (data.length === this.#size) {
      // In one piece: a known object is not even written, and one call is the faster digest.
      this.#digest = digestOf(data);
      if (this.#known() === undefined) this.#store.region(RegionType.data).append(data);
      return;
    }
    this.#digester ??= this.#startAfterZeros();
    this.#append(this.#digester, data);
  }

  finish(): StreamRecord {
    this.#digest ??= this.#digester?.finish();
    if (this.#digest === undefined)
      return { at: undefined, size: this.#size, type: StreamType.data, sparse: true };
    const known = this.#known();
    if (known !== undefined) this.#store.region(RegionType.data).rewind(this.#start);
    const at = known ?? this.#store.add(RegionType.data, this.#digest, this.#size, this.#start);
    return { at, size: this.#size, type: StreamType.data, sparse: false };
  }

  #known() {
    return this.#digest && this.#store.find(RegionType.data, this.#digest, this.#size);
  }

  #startAfterZeros(): Digester {
    const digester = new Digester();
    for (; this.#zeros > 0; this.#zeros -= Math.min(this.#zeros, ZEROS.length))
      this.#append(digester, ZEROS.subarray(0, Math.min(this.#zeros, ZEROS.length)));
    return digester;
  }

  #append(digester: Digester, data: Uint8Array): void {
    digester.update(data);
    this.#store.region(RegionType.data).append(data);
  }
}
