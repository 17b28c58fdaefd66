/** `cimlet apply` */

import { CimletError } from '../errors.ts';
import type { ResourceKey } from '../manifests/resources.ts';
import { checkSavedPlan } from '../reconciler/saved-plan.ts';
import type { SavedPlan } from '../reconciler/types.ts';
import { carryOut } from './carry-out.ts';
import { configOption, withConfig } from './configuration.ts';
import type { AddCommand } from './context.ts';
import { readManifests } from './manifests.ts';
import { filenameOption, requireFilenames, targetOption } from './options.ts';
import { type PlanningOptions, planRequest } from './plan.ts';
import { readSavedPlan } from './read-json.ts';
import { withWriter } from './session.ts';
import { interruptible } from './signals.ts';

const HELP = `
Plans, asks (unless --yes is given or standard input is no terminal), and
does it. What fails doesn't stop what doesn't depend on it. With a plan saved
by plan --out, does exactly that, or refuses and says what moved.

Exit codes: 0 all done; 1 something failed, was skipped or is blocked.

Examples:
  cimlet apply -f manifests/
  cimlet apply -f manifests/ --target mount/app --yes
  cimlet apply plan.json`;

interface ApplyOptions extends PlanningOptions {
  yes?: boolean;
}

export const addApply: AddCommand = (program, context) => {
  program
    .command('apply')
    .description('make the host match the manifests')
    .argument('[plan.json]', 'a plan saved with plan --out')
    .addOption(filenameOption())
    .addOption(targetOption())
    .option('--no-prune', 'keep what the manifests no longer declare')
    .addOption(configOption())
    .option('-y, --yes', "don't ask")
    .addHelpText('after', HELP)
    .action(async (file: string | undefined, _options, command) => {
      const given = command.optsWithGlobals() as ApplyOptions;
      const saved = file === undefined ? undefined : await readSavedPlan(file);
      const isRootTold = command.getOptionValueSourceWithGlobals('root') !== 'default';
      const told = saved === undefined ? given : optionsOf(saved, given, isRootTold);
      const options = await withConfig(told, command, context);
      requireFilenames(options, 'apply');
      const loaded = await interruptible(context, (signal) =>
        readManifests(context, options.filename, signal),
      );
      await withWriter(context, options, 'apply', async ({ engine }) => {
        const planned = await interruptible(context, (signal) =>
          engine.plan(planRequest(loaded, options), signal),
        );
        if (saved !== undefined) checkSavedPlan(saved, { plan: planned.plan, files: loaded.files });
        await carryOut(context, {
          plan: planned.plan,
          yes: options.yes === true,
          output: options.output,
          execute: (execution) => engine.apply(planned, execution),
        });
      });
    });
};

/** A saved plan says itself what it was made from. */
function optionsOf(saved: SavedPlan, given: ApplyOptions, isRootTold: boolean): ApplyOptions {
  if (given.filename.length > 0 || given.target.length > 0) {
    throw new CimletError('failed-precondition', 'apply: a saved plan takes neither -f nor --target', {
      hint: 'the plan knows the manifests and targets it was made from',
    });
  }
  const { inputs, plan } = saved;
  return {
    ...given,
    root: isRootTold ? given.root : plan.host.root,
    filename: inputs.arguments,
    target: inputs.targets as ResourceKey[],
    prune: inputs.prune,
  };
}
