/** Manifests for the commands that act on them: all valid, or the command goes no further. */

import { CimletError } from '../errors.ts';
import { loadManifests } from '../manifests/load.ts';
import type { LoadedManifests } from '../manifests/resources.ts';
import type { CliContext } from './context.ts';
import { renderProblems } from './render-error.ts';
import { plural } from './text.ts';

/** Prints every problem found, then throws `invalid-manifest` if there was one. */
export async function readManifests(
  { terminal, services }: CliContext,
  inputs: string[],
  signal: AbortSignal,
): Promise<LoadedManifests> {
  const loaded = await loadManifests(inputs, {
    readStdin: () => services.readStandardInput(signal),
    signal,
  });
  const { problems } = loaded;
  if (problems.length === 0) return loaded;
  terminal.printError(renderProblems(problems, terminal.paintError));
  throw new CimletError(
    'invalid-manifest',
    `${plural(problems.length, 'problem')} in the manifests; nothing was done`,
  );
}
