/** Keeps the most recently used values whose sizes add up to at most a limit. */
export class ByteCache<K, V> {
  readonly #limit: number;
  readonly #sizeOf: (value: V) => number;
  readonly #values = new Map<K, V>();
  #bytes = 0;

  constructor(limit: number, sizeOf: (value: V) => number) {
    this.#limit = limit;
    this.#sizeOf = sizeOf;
  }

  /** The cached value, or `load`'s, which is kept unless it alone exceeds the limit. */
  get(key: K, load: () => V): V {
    const cached = this.#values.get(key);
    if (cached !== undefined) {
      this.#values.delete(key);
      this.#values.set(key, cached);
      return cached;
    }
    const value = load();
    const size = this.#sizeOf(value);
    if (size > this.#limit) return value;
    this.#bytes += size;
    this.#values.set(key, value);
    for (const [oldest, old] of this.#values) {
      if (this.#bytes <= this.#limit) break;
      this.#values.delete(oldest);
      this.#bytes -= this.#sizeOf(old);
    }
    return value;
  }
}
