/** `cimlet cim diff` */

import type { Command } from 'commander';
import { type CimDifference, diffCims } from '../cim/diff.ts';
import { openCim } from '../cim/reader.ts';
import type { CliContext } from './context.ts';
import type { GlobalOptions } from './options.ts';
import { formatData, isDataFormat } from './output.ts';
import type { Paint } from './text.ts';
import { printable } from './text.ts';

const HELP = `
Names, metadata, streams, bytes and hard links are compared, whatever kinds of
CIM the two are. Of what only one has, only the topmost name is printed.

Exit codes: 0 nothing differs, 1 something does; errors are 2.

Example:
  cimlet cim diff old.cim new.bcim/layer.cim`;

interface DiffOptions extends GlobalOptions {
  sourceA?: string[];
  sourceB?: string[];
}

function collect(value: string, earlier: string[] = []): string[] {
  return [...earlier, value];
}

export function addDiff(cim: Command, context: CliContext): void {
  cim
    .command('diff')
    .description('list what differs between two CIMs; exits with 1 when anything does')
    .argument('<a.cim>', 'the first image')
    .argument('<b.cim>', 'the second image')
    .option('--source-a <file>', 'what a merged first image was made of, topmost first; repeat it', collect)
    .option('--source-b <file>', 'the same of the second image', collect)
    .addHelpText('after', HELP)
    .action(async (a: string, b: string, _options, command: Command) => {
      const { output, sourceA, sourceB } = command.optsWithGlobals<DiffOptions>();
      const first = openCim(a, { sources: sourceA });
      try {
        const second = openCim(b, { sources: sourceB });
        try {
          await printDifferences(context, diffCims(first, second), output);
        } finally {
          second.close();
        }
      } finally {
        first.close();
      }
    });
}

async function printDifferences(
  context: CliContext,
  differences: Iterable<CimDifference>,
  output: GlobalOptions['output'],
): Promise<void> {
  const { terminal } = context;
  if (isDataFormat(output)) {
    const all = [...differences];
    context.exitCode = all.length > 0 ? 1 : 0;
    terminal.print(formatData(all, output));
    return;
  }
  for (const difference of differences) {
    context.exitCode = 1;
    if (terminal.closed) return;
    await terminal.write(`${lineOf(difference, terminal.paint)}\n`);
  }
}

const SIGNS = {
  added: ['+', 'green'],
  removed: ['-', 'red'],
  changed: ['~', 'yellow'],
} as const;

function lineOf({ path, change, what }: CimDifference, paint: Paint): string {
  const [sign, style] = SIGNS[change];
  const details = what.length === 0 ? '' : `: ${what.join(', ')}`;
  return `${paint(style, sign)} ${printable(`${path === '' ? '/' : path}${details}`)}`;
}
