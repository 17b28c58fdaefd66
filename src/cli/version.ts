/** `cimlet version` */

import type { AddCommand } from './context.ts';
import type { GlobalOptions } from './options.ts';
import { formatData, isDataFormat } from './output.ts';

export const addVersion: AddCommand = (program, { terminal, version }) => {
  program
    .command('version')
    .description('print the version of cimlet and of what it runs on')
    .addHelpText('after', '\nExample:\n  cimlet version -o json')
    .action((_options, command) => {
      const { output } = command.optsWithGlobals() as GlobalOptions;
      const facts = { cimlet: version, node: process.versions.node, sqlite: process.versions.sqlite };
      if (isDataFormat(output)) terminal.print(formatData(facts, output));
      else terminal.print(`cimlet ${version} (Node.js ${facts.node}, SQLite ${facts.sqlite})`);
    });
};
