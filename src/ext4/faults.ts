/** Errors of ext4 images that are not what they should be. */

import { CimletError, classify } from '../errors.ts';

/** Something wrong in one image. `offset` is in bytes from the start of the file. */
export interface Ext4Fault {
  file: string;
  offset: number;
  message: string;
}

/** The error for a malformed structure; its `cause` is the fault, so that a verifier can collect it. */
export function corruptAt(file: string, offset: number, message: string): CimletError {
  const fault: Ext4Fault = { file, offset, message };
  return new CimletError('corrupt', `read ${file}: offset 0x${offset.toString(16)}: ${message}`, {
    cause: fault,
  });
}

/** The fault inside an error of `corruptAt`; undefined for any other error. */
export function faultOf(error: unknown): Ext4Fault | undefined {
  if (!(error instanceof CimletError) || error.code !== 'corrupt') return undefined;
  const cause = error.cause;
  if (typeof cause !== 'object' || cause === null) return undefined;
  return 'file' in cause && 'offset' in cause && 'message' in cause ? (cause as Ext4Fault) : undefined;
}

/** Runs a file-system action; its error gets its class and the operation's name. */
export function attempt<T>(operation: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw classify(error, operation);
  }
}

/** The error for what an image can't hold; whoever knows the file names it. */
export function refuse(message: string, hint?: string): CimletError {
  return new CimletError('corrupt', message, { hint });
}

/** A byte string, as messages show it. */
export function quote(name: string): string {
  const text = Buffer.from(name, 'latin1').toString();
  return JSON.stringify(text.length > 240 ? `${text.slice(0, 160)}…${text.slice(-60)}` : text);
}
