/** `cimlet doctor` */

import type { AddCommand } from './context.ts';
import { examineHost, type Finding } from './doctor-findings.ts';
import type { GlobalOptions } from './options.ts';
import { formatData, isDataFormat } from './output.ts';
import { indentWrapped, type Paint, padEnd, printable } from './text.ts';

const HELP = `
Looks at formats, mounts, privileges, kernel and root, says what works, and
why the rest doesn't. Changes nothing. Exits with 0 when layers can be
written and shown in at least one way, else with 1.

Example:
  cimlet doctor`;

export const addDoctor: AddCommand = (program, context) => {
  const { terminal, services } = context;
  program
    .command('doctor')
    .description('what this host can do, and why not the rest')
    .addHelpText('after', HELP)
    .action(async (_options, command) => {
      const { root, host: choice, output } = command.optsWithGlobals() as GlobalOptions;
      const host = await services.openHost(choice, root);
      const findings = await examineHost(host, AbortSignal.timeout(60_000));
      const works = findings.every((finding) => finding.ok || !finding.needed);
      context.exitCode = works ? 0 : 1;
      if (isDataFormat(output)) {
        terminal.print(formatData({ works, findings }, output));
        return;
      }
      terminal.print(renderFindings(findings, terminal.width, terminal.paint));
      terminal.print([
        '',
        works
          ? terminal.paint('green', 'cimlet can work on this host.')
          : terminal.paint('red', 'cimlet cannot work on this host yet.'),
      ]);
    });
};

function renderFindings(findings: readonly Finding[], width: number, paint: Paint): string[] {
  const column = findings.reduce((most, { name }) => Math.max(most, name.length), 0);
  return findings.flatMap((finding) => {
    const answer = finding.ok
      ? paint('green', 'yes')
      : paint(finding.needed ? 'red' : 'yellow', finding.needed ? 'NO ' : 'no ');
    const [first = '', ...rest] = indentWrapped(printable(finding.message), column + 7, width);
    const hint =
      finding.hint === undefined ? [] : indentWrapped(`hint: ${printable(finding.hint)}`, column + 7, width);
    return [`${answer}  ${padEnd(finding.name, column)}  ${first.trimStart()}`.trimEnd(), ...rest, ...hint];
  });
}
