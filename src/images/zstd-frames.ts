/**
 * Finds where zstd frames end. Node's decompressor stops after the first frame (and, before Node 24, takes a frame
 * that ends early for a whole one), while layers made by parallel compressors or as `zstd:chunked` have many frames
 * and skippable ones. Source: RFC 8878, section 3.1.
 */

const MAGIC = 0xfd2fb528;
/** Skippable frames: 0x184D2A50 to 0x184D2A5F. */
const SKIPPABLE = 0x184d2a50;
const LONGEST_FIELD = 5;

/** True when `bytes` begin a zstd stream. */
export function isZstd(bytes: Buffer): boolean {
  return bytes.length >= 4 && isFrameMagic(bytes.readUInt32LE(0));
}

function isFrameMagic(magic: number): boolean {
  return magic === MAGIC || isSkippable(magic);
}

function isSkippable(magic: number): boolean {
  return (magic & 0xfffffff0) >>> 0 === SKIPPABLE;
}

type State = 'magic' | 'skippableSize' | 'descriptor' | 'block' | 'frameEnd';

export class ZstdFrameWalker {
  /** The field that is read next; it is reached once `#pass` bytes went by. */
  #state: State = 'magic';
  #pass = 0;
  #field = Buffer.alloc(LONGEST_FIELD);
  #fieldLength = 0;
  #hasChecksum = false;

  /** True where the stream may end. */
  get betweenFrames(): boolean {
    return this.#state === 'magic' && this.#fieldLength === 0;
  }

  /**
   * Walks `chunk` from `start`, up to the end of the current frame or of the chunk, and returns where it stopped;
   * `betweenFrames` tells which it was. Returns undefined when no frame begins where one must.
   */
  walk(chunk: Buffer, start: number): number | undefined {
    let at = start;
    for (;;) {
      const passed = Math.min(this.#pass, chunk.length - at);
      this.#pass -= passed;
      at += passed;
      if (this.#pass > 0) return at;
      if (this.#state === 'frameEnd') {
        this.#state = 'magic';
        return at;
      }
      const wanted = fieldSize(this.#state);
      while (this.#fieldLength < wanted && at < chunk.length) {
        this.#field[this.#fieldLength++] = chunk[at++] as number;
      }
      if (this.#fieldLength < wanted) return at;
      this.#fieldLength = 0;
      if (!this.#takeField()) return undefined;
    }
  }

  #takeField(): boolean {
    switch (this.#state) {
      case 'magic': {
        const magic = this.#field.readUInt32LE(0);
        this.#state = isSkippable(magic) ? 'skippableSize' : 'descriptor';
        return isFrameMagic(magic);
      }
      case 'skippableSize':
        this.#pass = this.#field.readUInt32LE(0);
        this.#state = 'frameEnd';
        return true;
      case 'descriptor': {
        const descriptor = this.#field.readUInt8(0);
        this.#hasChecksum = (descriptor & 4) !== 0;
        this.#pass = headerSizeAfterDescriptor(descriptor);
        this.#state = 'block';
        return true;
      }
      case 'block': {
        const header = this.#field.readUIntLE(0, 3);
        const runLength = ((header >> 1) & 3) === 1;
        this.#pass = runLength ? 1 : header >>> 3;
        if ((header & 1) === 1) {
          if (this.#hasChecksum) this.#pass += 4;
          this.#state = 'frameEnd';
        }
        return true;
      }
      default:
        return true;
    }
  }
}

function fieldSize(state: State): number {
  if (state === 'descriptor') return 1;
  return state === 'block' ? 3 : 4;
}

/** Window descriptor, dictionary ID and frame content size. */
function headerSizeAfterDescriptor(descriptor: number): number {
  const singleSegment = (descriptor & 0x20) !== 0;
  const dictionary = [0, 1, 2, 4][descriptor & 3] ?? 0;
  const contentSizeFlag = descriptor >> 6;
  const contentSize = contentSizeFlag === 0 ? (singleSegment ? 1 : 0) : 1 << contentSizeFlag;
  return (singleSegment ? 0 : 1) + dictionary + contentSize;
}
