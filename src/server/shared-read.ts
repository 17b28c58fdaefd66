/** One read for many who ask: each gets one that began after it asked, and no two run at the same time. */
export function shareReads<T>(read: () => Promise<T>): () => Promise<T> {
  let last: Promise<unknown> = Promise.resolve();
  let next: Promise<T> | undefined;
  return () => {
    next ??= last
      .catch(() => undefined)
      .then(() => {
        next = undefined;
        return read();
      });
    last = next;
    return next;
  };
}
