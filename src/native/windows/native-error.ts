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
  /** The arguments, without what errors must not repeat. */
  args: readonly string[];
}

/**
 * A Windows function's error. `code` is what callers test; `win32` is the Win32 error in it, `statusName` its name in the
 * SDK's headers.
 */
export class NativeError extends CimletError {
  /** What it was made of. */
  readonly call: FailedCall;
  readonly dll: string;
  readonly function: string;
  readonly kind: StatusKind;
  readonly status: number;
  readonly statusName: string;
  readonly win32: number | undefined;
  readonly args: readonly string[];

  constructor(call: FailedCall) {
    const { name, code, win32, hint } = describeStatus(call.kind, call.status);
    const said = call.text ?? 'Windows has no words for it';
    super(code, `${call.operation}: ${said.replace(/\.$/, '')} (${call.function} in ${call.dll}: ${name})`, {
      hint,
    });
    this.call = call;
    this.dll = call.dll;
    this.function = call.function;
    this.kind = call.kind;
    this.status = call.status;
    this.statusName = name;
    this.win32 = win32;
    this.args = call.args;
  }
}

/** The first failed call in an error and its causes. */
export function nativeErrorIn(error: unknown): NativeError | undefined {
  if (error instanceof NativeError) return error;
  return error instanceof Error ? nativeErrorIn(error.cause) : undefined;
}

/** Whether an error is a Windows call's with one of these Win32 numbers. */
export function isWin32Error(error: unknown, ...numbers: number[]): error is NativeError {
  return error instanceof NativeError && error.win32 !== undefined && numbers.includes(error.win32);
}
