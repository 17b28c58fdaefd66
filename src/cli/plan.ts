/** `cimlet plan` */

import { writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { Option } from 'commander';
import { CimletError, classify } from '../errors.ts';
import type { LoadedManifests, ResourceKey } from '../manifests/resources.ts';
import { type PlanRequest, planElsewhere } from '../reconciler/engine.ts';
import { type HostLabels, splitByHost } from '../reconciler/host-labels.ts';
import { savePlan } from '../reconciler/saved-plan.ts';
import { sourceIdOf } from '../reconciler/sources.ts';
import type { Plan } from '../reconciler/types.ts';
import { configOption, labelsOfObserved, withConfig } from './configuration.ts';
import type { AddCommand, CliContext } from './context.ts';
import { findAgent } from './inventory.ts';
import { readManifests } from './manifests.ts';
import {
  filenameOption,
  type GlobalOptions,
  type ManifestOptions,
  requireFilenames,
  targetOption,
} from './options.ts';
import { formatData, isDataFormat } from './output.ts';
import { readHostState } from './read-json.ts';
import { registrySettings } from './registry-settings.ts';
import { isHindered, renderPlan } from './render-plan.ts';
import { openImageAccess, platformOf } from './resolve-image.ts';
import { withReader } from './session.ts';
import { interruptible } from './signals.ts';

const HELP = `
Observes the host and writes nothing. What has drifted stands apart from what
the manifests change. From standard input nothing is pruned. Without -f, the
plan of the agent that runs on the root, for the sources that it follows.

Exit codes: 0 done; 1 error, or something is blocked (suspended is not).
  --detailed-exitcode  0 nothing to do, 2 changes, 1 error or blocked
  --exit-code          0 nothing to do, 1 changes, 2 error or blocked

Examples:
  cimlet plan -f manifests/
  cimlet plan -f manifests/ --out plan.json && cimlet apply plan.json`;

export interface PlanningOptions extends GlobalOptions, ManifestOptions {
  config?: string;
  target: ResourceKey[];
  prune: boolean;
}

/** With the labels of the host that is planned for. */
type Labelled<Options> = Options & { labels: HostLabels };

interface PlanOptions extends PlanningOptions {
  out?: string;
  offline?: boolean;
  observed?: string;
  detailedExitcode?: boolean;
  exitCode?: boolean;
}

export const addPlan: AddCommand = (program, context) => {
  const { terminal } = context;
  program
    .command('plan')
    .description('show what apply would do, and do nothing')
    .addOption(filenameOption())
    .addOption(targetOption())
    .option('--no-prune', 'keep what the manifests no longer declare')
    .addOption(configOption())
    .option('--out <file>', 'save the plan, for apply FILE to do exactly that')
    .addOption(
      new Option('--offline', 'plan from the files alone, with no host').conflicts(['observed', 'out']),
    )
    .option('--observed <file>', 'plan for the host whose observe -o json is in FILE')
    .addOption(new Option('--detailed-exitcode', 'exit with 2 when there are changes').conflicts('exitCode'))
    .option('--exit-code', 'exit with 1 when there are changes, as diff does')
    .addHelpText('after', HELP)
    .action(async (_options, command) => {
      const options = await withConfig(command.optsWithGlobals() as PlanOptions, command, context);
      await interruptible(context, async (signal) => {
        const plan =
          (await askForPlan(context, options, signal)) ?? (await planFiles(context, options, signal));
        if (isDataFormat(options.output)) terminal.print(formatData(plan, options.output));
        else terminal.print(renderPlan(plan, terminal));
        context.exitCode = exitCodeOf(plan, options);
      });
    });
};

/** The agent's plan, when no manifests are named and one runs. */
async function askForPlan(
  context: CliContext,
  options: PlanOptions,
  signal: AbortSignal,
): Promise<Plan | undefined> {
  const { filename, observed, offline, out, target, prune } = options;
  if (filename.length > 0 || observed !== undefined || offline === true) return undefined;
  const client = await findAgent(context, options);
  if (client === undefined) return undefined;
  if (out !== undefined || target.length > 0 || !prune) {
    throw new CimletError('failed-precondition', 'plan: --out, --target and --no-prune need manifests', {
      hint: "name them with -f; without, the agent's own plan is shown as it is",
    });
  }
  return (await client.get('/api/v1/plan', signal)) as Plan;
}

async function planFiles(
  context: CliContext,
  options: Labelled<PlanOptions>,
  signal: AbortSignal,
): Promise<Plan> {
  const loaded = await readManifests(context, requireFilenames(options, 'plan'), signal);
  const plan = await makePlan(context, loaded, options, signal);
  if (options.out !== undefined) await writeSavedPlan(options.out, plan, loaded, options);
  return plan;
}

/** The request that `-f`, `--target` and `--no-prune` amount to. Standard input names no source to prune by. */
export function planRequest(loaded: LoadedManifests, options: Labelled<PlanningOptions>): PlanRequest {
  const fromStandardInput = options.filename.includes('-');
  const { here, elsewhere } = splitByHost(loaded.resources, options.labels);
  const source = {
    id: sourceIdOf(options.filename.map(absolute)),
    revision: loaded.revision,
    resources: here,
    elsewhere,
    prune: options.prune && !fromStandardInput,
  };
  return { sources: [source], targets: options.target };
}

function absolute(input: string): string {
  return input === '-' ? input : resolve(input);
}

async function makePlan(
  context: CliContext,
  loaded: LoadedManifests,
  options: Labelled<PlanOptions>,
  signal: AbortSignal,
): Promise<Plan> {
  if (options.offline || options.observed !== undefined) {
    const observed = options.observed === undefined ? undefined : await readHostState(options.observed);
    const labels = observed === undefined ? options.labels : labelsOfObserved(options.labels, observed);
    const request = planRequest(loaded, { ...options, labels });
    const platform = observed === undefined ? context.services.platform : platformOf(observed);
    const root = observed?.root ?? options.root;
    const images = openImageAccess({
      platform,
      root,
      store: observed === undefined ? 'read' : 'none',
      offline: options.offline,
      registry: registrySettings(context, options),
    });
    try {
      const { resolveImage } = images;
      return await planElsewhere(request, { observed, root, resolveImage }, signal);
    } finally {
      await images.close();
    }
  }
  const request = planRequest(loaded, options);
  return withReader(context, options, async ({ engine }) => (await engine.plan(request, signal)).plan);
}

async function writeSavedPlan(
  file: string,
  plan: Plan,
  loaded: LoadedManifests,
  options: PlanOptions,
): Promise<void> {
  if (options.filename.includes('-')) {
    throw new CimletError('failed-precondition', 'plan --out: standard input cannot be read again by apply', {
      hint: 'keep the manifests in a file, and name it with -f',
    });
  }
  const saved = savePlan(plan, {
    arguments: options.filename.map(absolute),
    files: loaded.files,
    targets: options.target,
    prune: options.prune,
  });
  try {
    await writeFile(file, `${formatData(saved, 'json')}\n`);
  } catch (error) {
    throw classify(error, `save plan ${file}`);
  }
}

function exitCodeOf(plan: Plan, options: PlanOptions): number {
  if (isHindered(plan)) return options.exitCode ? 2 : 1;
  if (plan.actions.length === 0) return 0;
  if (options.detailedExitcode) return 2;
  return options.exitCode ? 1 : 0;
}
