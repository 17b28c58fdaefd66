/**
 * The one error class. `code` is the contract callers test; the message names the operation and the object;
 * `hint` says what an operator can do; `cause` keeps the error underneath. Plain `Error` is reserved for bugs.
 */

export type ErrorCode =
  | 'not-found'
  | 'already-exists'
  | 'failed-precondition'
  | 'invalid-manifest'
  | 'unsupported-host'
  | 'access-denied'
  | 'busy'
  | 'unavailable'
  | 'no-space'
  | 'corrupt'
  | 'cancelled'
  | 'native';

/** What a machine does next: try again with backoff, wait for another resource, or stall until a new revision. */
export type Disposition = 'retry' | 'wait' | 'stall';

const DISPOSITIONS: Record<ErrorCode, Disposition> = {
  'not-found': 'stall',
  'already-exists': 'stall',
  'failed-precondition': 'wait',
  'invalid-manifest': 'stall',
  'unsupported-host': 'stall',
  'access-denied': 'stall',
  busy: 'retry',
  unavailable: 'retry',
  'no-space': 'retry',
  corrupt: 'stall',
  cancelled: 'stall',
  native: 'retry',
};

export interface ErrorOptions {
  hint?: string | undefined;
  cause?: unknown;
}

export class CimletError extends Error {
  override readonly name = 'CimletError';
  readonly code: ErrorCode;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
  }
}

export function disposition(code: ErrorCode): Disposition {
  return DISPOSITIONS[code];
}

export function isErrorCode(error: unknown, ...codes: ErrorCode[]): error is CimletError {
  return error instanceof CimletError && codes.includes(error.code);
}

const SYSTEM_CODES: Record<string, ErrorCode> = {
  ENOENT: 'not-found',
  EEXIST: 'already-exists',
  ENOTEMPTY: 'already-exists',
  ENOTDIR: 'failed-precondition',
  ELOOP: 'failed-precondition',
  ENAMETOOLONG: 'failed-precondition',
  EISDIR: 'failed-precondition',
  EACCES: 'access-denied',
  EPERM: 'access-denied',
  EROFS: 'access-denied',
  ENOSPC: 'no-space',
  EDQUOT: 'no-space',
  EFBIG: 'no-space',
  EBUSY: 'busy',
  EAGAIN: 'busy',
  EMFILE: 'busy',
  ENFILE: 'busy',
  EADDRINUSE: 'busy',
  EADDRNOTAVAIL: 'failed-precondition',
  ETIMEDOUT: 'unavailable',
  ECONNREFUSED: 'unavailable',
  ECONNRESET: 'unavailable',
  EPIPE: 'unavailable',
};

const SYSTEM_HINTS: Partial<Record<ErrorCode, string>> = {
  'no-space': 'free space on that file system, or choose another --root',
};

/**
 * Gives a failed system call of Node (an error with a `code` such as ENOENT) its class; `native` when it has none of its
 * own, as EIO. `operation` names what was being done and to what ("write layer region /x/y"). Errors that already are
 * CimletErrors pass through; an abort becomes `cancelled`; anything else is a bug and passes through unchanged.
 */
export function classify(error: unknown, operation: string, hint?: string): unknown {
  if (error instanceof CimletError || !(error instanceof Error)) return error;
  if (error.name === 'AbortError')
    return new CimletError('cancelled', `${operation}: cancelled`, { cause: error });
  const { code: systemCode, syscall } = error as NodeJS.ErrnoException;
  const known = systemCode === undefined ? undefined : SYSTEM_CODES[systemCode];
  const code = known ?? (syscall === undefined ? undefined : 'native');
  if (code === undefined) return error;
  const reason = error.message.replace(/^(\w+ )?E[A-Z]+: /, '').replace(/, \w+( '.*')?$/, '');
  return new CimletError(code, `${operation}: ${reason} (${systemCode})`, {
    hint: hint ?? SYSTEM_HINTS[code],
    cause: error,
  });
}

/** The error as one or two lines for a person: message, then what to do. */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const hint = error instanceof CimletError && error.hint !== undefined ? `\n  hint: ${error.hint}` : '';
  return `${error.message}${hint}`;
}
