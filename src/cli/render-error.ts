/** Errors and manifest problems as lines for standard error. */

import { CimletError } from '../errors.ts';
import type { Problem, SourcePosition } from '../manifests/resources.ts';
import { type Paint, printable, printableLines } from './text.ts';

/**
 * `error: <message>`, then `hint: <what to do>`; with `debug` the stack and every cause as well. `subject` names what
 * failed, where the message alone may not.
 */
export function renderError(error: unknown, paint: Paint, debug: boolean, subject = ''): string[] {
  const message = error instanceof Error ? error.message : String(error);
  const prefix = subject === '' ? '' : `${subject}: `;
  const lines = [`${paint('red', 'error:')} ${printableLines(prefix + message)}`];
  if (error instanceof CimletError && error.hint !== undefined) {
    lines.push(renderHint(error.hint, paint));
  }
  const isBug = error instanceof Error && !(error instanceof CimletError);
  if (debug && error instanceof Error) {
    lines.push(...stackLines(error));
  } else if (isBug) {
    lines.push(renderHint('this looks like a bug in cimlet; CIMLET_DEBUG=1 shows where', paint));
  }
  return lines;
}

export function renderHint(hint: string, paint: Paint): string {
  return `${paint('cyan', 'hint:')} ${printableLines(hint)}`;
}

function stackLines(error: Error): string[] {
  const lines: string[] = [];
  let current: unknown = error;
  while (current instanceof Error) {
    const prefix = current === error ? '' : 'caused by ';
    lines.push(...printableLines(`${prefix}${current.stack ?? current.message}`).split('\n'));
    current = current.cause;
  }
  return lines;
}

export function formatPosition(position: SourcePosition): string {
  return printable(`${position.file}:${position.line}:${position.column}`);
}

/** `file:line:column: message (did you mean ...?)`, one line for each problem, in the order of the files. */
export function renderProblems(problems: readonly Problem[], paint: Paint): string[] {
  return problems.map((problem) => {
    const suggestion = problem.suggestion === undefined ? '' : ` (${problem.suggestion})`;
    const place = paint('bold', `${formatPosition(problem.position)}:`);
    return `${place} ${printable(`${problem.message}${suggestion}`)}`;
  });
}
