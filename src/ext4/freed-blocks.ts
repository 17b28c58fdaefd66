/** Blocks that were written for what was replaced later: they stay in the image, and are free in its bitmaps. */

import { Column } from './columns.ts';

export class FreedBlocks {
  readonly #first = new Column(4);
  readonly #count = new Column(4);

  add(first: number, count: number): void {
    const last = this.#first.length - 1;
    if (last >= 0 && this.#first.get(last) + this.#count.get(last) === first) {
      this.#count.set(last, this.#count.get(last) + count);
      return;
    }
    this.#first.push(first);
    this.#count.push(count);
  }

  *[Symbol.iterator](): Generator<{ first: number; count: number }> {
    for (let index = 0; index < this.#first.length; index++)
      yield { first: this.#first.get(index), count: this.#count.get(index) };
  }
}
