import { CimletError, classify, isErrorCode } from '../errors.ts';

/** One thing wrong in one file of an image. `offset` is in bytes from the start of that file. */
export interface CimFault {
  file: string;
  offset: number;
  message: string;
}

/** The error for a malformed structure; its `cause` is the fault, so that a verifier can collect it. */
export function corruptAt(file: string, offset: number, message: string): CimletError {
  const fault: CimFault = { file, offset, message };
  return new CimletError('corrupt', `read CIM: ${file}: offset 0x${offset.toString(16)}: ${message}`, {
    cause: fault,
  });
}

/** The fault inside an error of `corruptAt`; undefined for any other error. */
export function faultOf(error: unknown): CimFault | undefined {
  if (!isErrorCode(error, 'corrupt')) return undefined;
  const cause = error.cause;
  if (typeof cause !== 'object' || cause === null) return undefined;
  return 'file' in cause && 'offset' in cause && 'message' in cause ? (cause as CimFault) : undefined;
}

/** Runs a file-system action; its error gets its class and the operation's name. */
export function attempt<T>(operation: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw classify(error, operation);
  }
}
