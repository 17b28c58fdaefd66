/** A failed Windows call. */

import { CimletError } from '../../errors.ts';
import { describeStatus, type StatusKind } from './status.ts';

export interface FailedCall {
  /** What was being done and to what. */
  operation: string;
  dll: string;
  function: string;
  kind: StatusKind;
  /** The number as returned, unsigned. */
  status: number;
  /** What Windows says about the number, where it says anything. */
  text: string | undefined;
  /** What an operator can do, where that is more than the number says. */
  hint?: string;
  /** The arguments, without what errors must not repeat. */
  args: readonly string[];
}

/**
 * A Windows function's error. `code` is what callers test; `win32` is the Win32 error in it, `statusName` its name in the
 * SDK's headers.
 */
export class NativeError extends CimletError {
  readonly dll: string;
  readonly function: string;
  readonly kind: StatusKind;
  readonly status: number;
  readonly statusName: string;
  readonly win32: number | undefined;
  readonly args: readonly string[];
  readonly #call: FailedCall;

  constructor(call: FailedCall) {
    const { name, code, win32, hint } = describeStatus(call.kind, call.status);
    const said = call.text ?? 'Windows has no words for it';
    super(code, `${call.operation}: ${said.replace(/\.$/, '')} (${call.function} in ${call.dll}: ${name})`, {
      hint: call.hint ?? hint,
    });
    this.dll = call.dll;
    this.function = call.function;
    this.kind = call.kind;
    this.status = call.status;
    this.statusName = name;
    this.win32 = win32;
    this.args = call.args;
    this.#call = call;
  }

  /** The same error, its hint followed by more. */
  withHint(more: string): NativeError {
    const hint = this.hint === undefined ? more : `${this.hint}; ${more}`;
    return new NativeError({ ...this.#call, hint });
  }
}

/** Whether an error is a Windows call's with one of these Win32 numbers. */
export function isWin32Error(error: unknown, ...numbers: number[]): error is NativeError {
  return error instanceof NativeError && error.win32 !== undefined && numbers.includes(error.win32);
}
