/** Where the agent of a root is to be found. */

import { createHash } from 'node:crypto';
import { join, resolve } from 'node:path';
import { CimletError } from '../errors.ts';

/** What a Unix socket's address holds, its last zero byte left out (unix(7)). */
const LONGEST_PATH = 107;

/** On Windows. Paths are the same there whatever their case. */
export function agentPipe(root: string): string {
  const name = createHash('sha256').update(resolve(root).toLowerCase()).digest('hex').slice(0, 16);
  return `\\\\.\\pipe\\cimlet-${name}`;
}

/** A unix socket, everywhere else. Throws `failed-precondition` when the root's path is too long for one. */
export function agentSocket(root: string): string {
  const path = join(resolve(root), 'agent.sock');
  if (Buffer.byteLength(path) <= LONGEST_PATH) return path;
  throw new CimletError('failed-precondition', `${path} is too long for the name of a socket`, {
    hint: `choose a --root whose path is shorter, by ${Buffer.byteLength(path) - LONGEST_PATH} bytes or more`,
  });
}
