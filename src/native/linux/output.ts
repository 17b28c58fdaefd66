/** Whether anybody still reads what is written. Node hears of that by the next write only. */

import { check, libc } from './libc.ts';

const POLLERR = 0x8;
const POLLHUP = 0x10;
/** struct pollfd: fd, events, revents. */
const POLLFD_BYTES = 8;
const REVENTS = 6;

/** True when a pipe, socket or terminal has no other end any more; false for anything else. See poll(2). */
export function isReaderGone(fd: number): boolean {
  const asked = Buffer.alloc(POLLFD_BYTES);
  asked.writeInt32LE(fd);
  check(`ask who reads file ${fd}`, libc.call('poll', asked, 1, 0));
  return (asked.readInt16LE(REVENTS) & (POLLERR | POLLHUP)) !== 0;
}
