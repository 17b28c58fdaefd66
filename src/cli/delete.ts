/** `cimlet delete` */

import { existsSync } from 'node:fs';
import { CimletError } from '../errors.ts';
import { type ResourceKey, resourceKey } from '../manifests/resources.ts';
import { carryOut } from './carry-out.ts';
import type { AddCommand, CliContext } from './context.ts';
import { readManifests } from './manifests.ts';
import { filenameOption, type GlobalOptions, type ManifestOptions, parseResourceKey } from './options.ts';
import { type Session, withReader, withWriter } from './session.ts';
import { interruptible } from './signals.ts';

const HELP = `
Takes away what the manifests declare, or the resources named: mounts first,
layers last, keeping what others still use. Asks as apply does.

Exit codes: 0 all gone; 1 something failed, or a name stands for nothing here.

Examples:
  cimlet delete -f manifests/
  cimlet delete mount/app chain/app --yes`;

interface DeleteOptions extends GlobalOptions, ManifestOptions {
  yes?: boolean;
}

export const addDelete: AddCommand = (program, context) => {
  program
    .command('delete')
    .description('take resources off the host')
    .argument('[kind/name...]', 'resources, when not named by -f')
    .addOption(filenameOption())
    .option('-y, --yes', "don't ask")
    .addHelpText('after', HELP)
    .action(async (names: string[], _options, command) => {
      const options = command.optsWithGlobals() as DeleteOptions;
      const named = names.map(keyNamed);
      if (named.length === 0 && options.filename.length === 0) {
        throw new CimletError('failed-precondition', 'delete: nothing named', {
          hint: 'for example: cimlet delete -f manifests/, or cimlet delete mount/app',
        });
      }
      const { keys, revision } = await interruptible(context, (signal) =>
        declaredKeys(context, options.filename, signal),
      );
      const deleteAll = async ({ engine, state }: Session) => {
        const planned = await interruptible(context, (signal) =>
          engine.planDelete({ keys: [...named, ...keys], revision }, signal),
        );
        const found = new Set(planned.plan.actions.map(({ kind, name }) => `${kind}/${name}`));
        const unknown = named.filter((key) => state.resource(key) === undefined && !found.has(key));
        await carryOut(context, {
          plan: planned.plan,
          yes: options.yes === true,
          output: options.output,
          execute: (execution) => engine.apply(planned, execution),
        });
        // What manifests declare may be gone already; a name that nothing has is a mistake, as for kubectl.
        if (unknown.length > 0 && context.exitCode === 0)
          throw new CimletError('not-found', `delete: ${unknown.join(', ')} is not on this host`, {
            hint: 'cimlet get all lists what is; --root chooses another root',
          });
      };
      // A writer would make the root. Without one there is nothing to delete.
      if (existsSync(options.root)) await withWriter(context, options, 'delete', deleteAll);
      else await withReader(context, options, deleteAll);
    });
};

function keyNamed(text: string): ResourceKey {
  const key = parseResourceKey(text);
  if (key !== undefined) return key;
  throw new CimletError('not-found', `delete: ${text} names no resource`, {
    hint: 'name it as image/NAME, layerchain/NAME or mount/NAME',
  });
}

async function declaredKeys(
  context: CliContext,
  inputs: string[],
  signal: AbortSignal,
): Promise<{ keys: ResourceKey[]; revision: string }> {
  if (inputs.length === 0) return { keys: [], revision: 'none' };
  const { resources, revision } = await readManifests(context, inputs, signal);
  return { keys: resources.map(resourceKey), revision };
}
