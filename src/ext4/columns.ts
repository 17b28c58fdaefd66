/** Columns of numbers that grow in segments: growing copies nothing, so that a million files cost what they need and no more. */

const SEGMENT_BITS = 15;
const SEGMENT = 1 << SEGMENT_BITS;
const MASK = SEGMENT - 1;

type Segment = Uint8Array | Uint16Array | Uint32Array;

const KINDS = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array } as const;

export class Column {
  readonly #segments: Segment[] = [];
  readonly #make: new (
    length: number,
  ) => Segment;
  #length = 0;

  /** Of unsigned numbers of so many bytes. */
  constructor(bytes: keyof typeof KINDS) {
    this.#make = KINDS[bytes];
  }

  get length(): number {
    return this.#length;
  }

  push(value: number): void {
    if (this.#length >> SEGMENT_BITS === this.#segments.length) this.#segments.push(new this.#make(SEGMENT));
    this.#length++;
    this.set(this.#length - 1, value);
  }

  get(index: number): number {
    return (this.#segments[index >> SEGMENT_BITS] as Segment)[index & MASK] as number;
  }

  set(index: number, value: number): void {
    (this.#segments[index >> SEGMENT_BITS] as Segment)[index & MASK] = value;
  }
}
