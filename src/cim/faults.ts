import { CimletError, classify, isErrorCode } from '../errors.ts';

/** One thing wrong in one file of an image. `offset` is in bytes from the start of that file. */
export interface CimFault {
  file: string;
  offset: number;
  message: string;
  /** Of the last entry of a list that is cut: how many more faults there are. */
  unlisted?: number;
}

/** The error for a malformed structure; its `cause` is the fault, so that a verifier can collect it. */
export function corrupt(fault: CimFault): CimletError {
  const { file, offset, message } = fault;
  return new CimletError('corrupt', `read CIM: ${file}: offset 0x${offset.toString(16)}: ${message}`, {
    cause: fault,
  });
}

export function corruptAt(file: string, offset: number, message: string): CimletError {
  return corrupt({ file, offset, message });
}

/** The fault inside an error of `corruptAt`; undefined for any other error. */
export function faultOf(error: unknown): CimFault | undefined {
  if (!isErrorCode(error, 'corrupt')) return undefined;
  const cause = error.cause;
  if (typeof cause !== 'object' || cause === null) return undefined;
  return 'file' in cause && 'offset' in cause && 'message' in cause ? (cause as CimFault) : undefined;
}

/** How many faults a list says that there are. */
export function countFaults(faults: readonly CimFault[]): number {
  return faults.reduce((sum, { unlisted = 1 }) => sum + unlisted, 0);
}

/** Runs a check of bytes that begin at `base` of their file: its fault's offset becomes one of the file. */
export function withBase<T>(base: number, check: () => T): T {
  try {
    return check();
  } catch (error) {
    const fault = faultOf(error);
    throw fault === undefined ? error : corrupt({ ...fault, offset: base + fault.offset });
  }
}

/** Runs a file-system action; its error gets its class and the operation's name. */
export function attempt<T>(operation: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw classify(error, operation);
  }
}

/** Of a file that is damaged all over nobody reads more, and a large one has millions. */
const MAX_FAULTS = 100;

/** Faults as a verifier collects them: the first of them, and how many more there are. */
export class FaultList {
  readonly #first: CimFault[] = [];
  #last: CimFault | undefined;
  #unlisted = 0;
  /** Files that cannot be read at all: said once. */
  readonly #broken = new Set<string>();

  /** What was found; where that is too much, the last entry says how much more. */
  get list(): CimFault[] {
    if (this.#last === undefined) return [...this.#first];
    const unlisted = this.#unlisted;
    const message = `${unlisted} more ${unlisted === 1 ? 'fault' : 'faults'} up to here`;
    return [...this.#first, { ...this.#last, message, unlisted }];
  }

  add(fault: CimFault): void {
    if (this.#broken.has(fault.file)) return;
    if (this.#first.length < MAX_FAULTS) {
      this.#first.push(fault);
      return;
    }
    this.#last = fault;
    this.#unlisted++;
  }

  addBroken(fault: CimFault): void {
    this.add(fault);
    this.#broken.add(fault.file);
  }

  isBroken(file: string): boolean {
    return this.#broken.has(file);
  }

  /** Runs a check; its fault is added and its result then undefined. */
  collect<T>(check: () => T): T | undefined {
    try {
      return check();
    } catch (error) {
      const fault = faultOf(error);
      if (fault === undefined) throw error;
      this.add(fault);
      return undefined;
    }
  }
}
