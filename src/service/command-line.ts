/** Command lines of Windows: one text, which each program takes apart by itself. */

import { CimletError } from '../errors.ts';

/**
 * The text of which CommandLineToArgvW, and with it Node, makes these again, as the binary path of a service: its program
 * is always quoted, since Windows would try the words of a path with spaces one after the other. Throws
 * `failed-precondition` for what it can't hold: control characters, a quote in the program, and %NAME%, which the service
 * control manager takes for a variable.
 * https://learn.microsoft.com/windows/win32/api/shellapi/nf-shellapi-commandlinetoargvw
 */
export function serviceCommandLine([program, ...args]: readonly [string, ...string[]]): string {
  const line = [`"${program}"`, ...args.map(quoteArgument)].join(' ');
  const problem = /\p{Cc}/u.test(line)
    ? 'control characters'
    : program.includes('"')
      ? 'a quote in the path of the program'
      : /%[^%]*%/.test(line)
        ? 'two % signs, between which Windows sees the name of a variable'
        : undefined;
  if (problem === undefined) return line;
  throw new CimletError(
    'failed-precondition',
    `the command line of a service can't hold ${problem}: ${line}`,
    {
      hint: 'choose other paths',
    },
  );
}

/** Backslashes mean themselves, but before a quote. */
function quoteArgument(argument: string): string {
  if (/^[^\s"]+$/.test(argument)) return argument;
  return `"${argument.replace(/(\\*)("|$)/g, (_match, slashes: string, quote: string) => slashes + slashes + (quote === '' ? '' : '\\"'))}"`;
}
