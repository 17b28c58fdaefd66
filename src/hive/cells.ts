/**
 * The cells of a hive that is being read. All bins and cells are checked once; afterwards every cell is handed out at
 * most once, so that a reader that follows offsets can neither loop nor build more than the file holds.
 */

import {
  BASE_BLOCK_SIZE,
  BIN_ALIGNMENT,
  BIN_HEADER_SIZE,
  CELL_ALIGNMENT,
  corruptHive,
  OFFSET_SIZE,
} from './format.ts';

/** The contents of a cell: `start` is in bytes from the start of the file, `length` without the cell's size field. */
export interface Cell {
  start: number;
  length: number;
}

const CellState = { nothing: 0, free: 1, allocated: 2, taken: 3 } as const;

export class HiveCells {
  readonly bytes: Buffer;
  readonly #name: string;
  /** What starts at each multiple of 8 bytes. */
  readonly #states: Uint8Array;

  constructor(bytes: Buffer, name: string, binsSize: number) {
    this.bytes = bytes;
    this.#name = name;
    this.#states = new Uint8Array(binsSize / CELL_ALIGNMENT);
    for (let bin = 0; bin < binsSize; ) bin = this.#scanBin(bin, binsSize);
  }

  /**
   * The cell at an offset from the end of the base block, which must be in use, hold at least `minimum` bytes, and
   * not have been taken before. `what` says what should be there, `from` where in the file the offset stands.
   */
  take(offset: number, minimum: number, what: string, from: number): Cell {
    const state = offset % CELL_ALIGNMENT === 0 ? this.#states[offset / CELL_ALIGNMENT] : undefined;
    if (state !== CellState.allocated)
      throw this.fault(from, `the ${what} at cell 0x${offset.toString(16)} ${problem(state)}`);
    this.#states[offset / CELL_ALIGNMENT] = CellState.taken;
    const position = BASE_BLOCK_SIZE + offset;
    const length = -this.bytes.readInt32LE(position) - OFFSET_SIZE;
    if (length < minimum)
      throw this.fault(position, `the ${what} needs ${minimum} bytes, but its cell has ${length}`);
    return { start: position + OFFSET_SIZE, length };
  }

  /** Checks that a structure that extends to `needed` bytes fits into its cell. */
  require(cell: Cell, needed: number, what: string): void {
    if (needed > cell.length)
      throw this.fault(cell.start, `the ${what} needs ${needed} bytes, but its cell has ${cell.length}`);
  }

  signature(cell: Cell): string {
    return this.bytes.toString('latin1', cell.start, cell.start + 2);
  }

  requireSignature(cell: Cell, signature: string, what: string): void {
    if (this.signature(cell) !== signature) throw this.fault(cell.start, `no ${what} ("${signature}") here`);
  }

  fault(position: number, message: string): Error {
    return corruptHive(this.#name, position, message);
  }

  #scanBin(bin: number, binsSize: number): number {
    const position = BASE_BLOCK_SIZE + bin;
    if (this.bytes.toString('latin1', position, position + 4) !== 'hbin')
      throw this.fault(position, 'no hive bin here');
    const ownOffset = this.bytes.readUInt32LE(position + 4);
    if (ownOffset !== bin)
      throw this.fault(position + 4, `the hive bin says it is at 0x${ownOffset.toString(16)}`);
    const size = this.bytes.readUInt32LE(position + 8);
    if (size === 0 || size % BIN_ALIGNMENT !== 0 || size > binsSize - bin)
      throw this.fault(position + 8, `a hive bin cannot have ${size} bytes`);
    const end = bin + size;
    for (let cell = bin + BIN_HEADER_SIZE; cell < end; ) cell = this.#scanCell(cell, end);
    return end;
  }

  #scanCell(cell: number, end: number): number {
    const position = BASE_BLOCK_SIZE + cell;
    const size = this.bytes.readInt32LE(position);
    const length = Math.abs(size);
    if (length === 0 || length % CELL_ALIGNMENT !== 0 || length > end - cell)
      throw this.fault(position, `a cell cannot have ${length} bytes`);
    this.#states[cell / CELL_ALIGNMENT] = size < 0 ? CellState.allocated : CellState.free;
    return cell + length;
  }
}

function problem(state: number | undefined): string {
  if (state === CellState.taken) return 'belongs to something else too';
  return state === CellState.free ? 'is free' : 'is not where a cell starts';
}
