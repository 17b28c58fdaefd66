import type { CimStream } from '../../cim/types.ts';
import { CimletError } from '../../errors.ts';

/** Holds whoever writes a file to its declared size. */
export function exactStream(
  name: string,
  size: number,
  { write, close }: { write: (data: Uint8Array) => void; close: () => void },
): CimStream {
  let left = size;
  const wrongSize = () =>
    new CimletError('failed-precondition', `write ${name}: its declared size of ${size} bytes is wrong`);
  return {
    write: (data) => {
      if (data.length > left) throw wrongSize();
      if (data.length > 0) write(data);
      left -= data.length;
    },
    close: () => {
      close();
      if (left > 0) throw wrongSize();
    },
  };
}
