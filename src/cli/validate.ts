/** `cimlet validate` */

import { loadManifests } from '../manifests/load.ts';
import { resourceKey } from '../manifests/resources.ts';
import { explainElsewhere, splitByHost } from '../reconciler/host-labels.ts';
import { configOption, withConfig } from './configuration.ts';
import type { AddCommand } from './context.ts';
import { filenameOption, type GlobalOptions, type ManifestOptions, requireFilenames } from './options.ts';
import { formatData, isDataFormat } from './output.ts';
import { renderProblems } from './render-error.ts';
import { plural } from './text.ts';

const HELP = `
Reads the manifests and nothing else: no host, no images, no network. Exits
with 0 when all is well and 1 when there are problems.

Example:
  cimlet validate -f manifests/`;

export const addValidate: AddCommand = (program, context) => {
  const { terminal, services } = context;
  program
    .command('validate')
    .description('check manifests against the schemas, and their references')
    .addOption(filenameOption())
    .addOption(configOption())
    .addHelpText('after', HELP)
    .action(async (_options, command) => {
      const given = command.optsWithGlobals() as GlobalOptions & ManifestOptions & { config?: string };
      const options = await withConfig(given, command, context);
      const inputs = requireFilenames(options, 'validate');
      const { resources, problems, files } = await loadManifests(inputs, {
        readStdin: () => services.readStandardInput(),
      });
      context.exitCode = problems.length > 0 ? 1 : 0;
      if (isDataFormat(options.output)) {
        const valid = problems.length === 0;
        const names = resources.map((resource) => ({
          key: resourceKey(resource),
          position: resource.position,
        }));
        terminal.print(formatData({ valid, problems, resources: names }, options.output));
        return;
      }
      terminal.printError(renderProblems(problems, terminal.paintError));
      for (const resource of splitByHost(resources, options.labels).elsewhere)
        terminal.printError(`${resourceKey(resource)}: ${explainElsewhere(resource)}`);
      const amount = `${plural(resources.length, 'resource')} in ${plural(files.length, 'file')}`;
      if (problems.length === 0) terminal.print(terminal.paint('green', `Valid: ${amount}.`));
      else terminal.print(terminal.paint('red', `Invalid: ${plural(problems.length, 'problem')}.`));
    });
};
