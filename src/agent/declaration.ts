/** What a revision of a source declares. A mistake in one document is that resource's own, as far as it can be told. */

import { CimletError } from '../errors.ts';
import { loadManifestContents } from '../manifests/load.ts';
import {
  formatPosition,
  type InvalidResource,
  type Problem,
  type Resource,
  type ResourceKey,
  resourceKey,
} from '../manifests/resources.ts';
import type { Revision } from '../sources/source.ts';

export interface Declaration {
  revision: string;
  /** What is sound. */
  resources: readonly Resource[];
  /** What isn't; in no other list. */
  invalid: readonly InvalidResource[];
}

/** Problems that a message names; the rest is counted. */
const NAMED = 3;

/**
 * Throws `invalid-manifest` for a mistake of which it can't be told whose it is: text that doesn't parse, a document
 * without a kind or name. What such a document declares would look as if it were gone, and be pruned.
 */
export function readDeclaration(
  source: string,
  { name, manifests }: Pick<Revision, 'name' | 'manifests'>,
): Declaration {
  const { resources, problems: found, invalidHosts } = loadManifestContents(manifests);
  // What it refers to may be declared by another source: who plans for all of them finds out.
  const problems = found.filter(({ code }) => code !== 'dangling-reference');
  if (problems.some(({ resource }) => resource === undefined)) {
    throw new CimletError(
      'invalid-manifest',
      `source ${source}: revision ${name} is not applied: ${listProblems(problems)}`,
      { hint: 'mend the manifests; until then what was in force stays' },
    );
  }
  const specs = new Map(resources.map((resource) => [resourceKey(resource), resource.spec]));
  const invalid = new Map<ResourceKey, InvalidResource>();
  for (const problem of problems) {
    const { resource: key, position } = problem;
    if (key === undefined || invalid.has(key)) continue;
    const matchLabels = invalidHosts.get(key) ?? specs.get(key)?.hosts?.matchLabels ?? {};
    invalid.set(key, { key, position, message: describeProblem(problem), matchLabels });
  }
  return {
    revision: name,
    resources: resources.filter((resource) => !invalid.has(resourceKey(resource))),
    invalid: [...invalid.values()],
  };
}

/** What is to be said of a revision that is in force but for some resources; undefined when all of it is. */
export function describeInvalid(source: string, { revision, invalid }: Declaration): CimletError | undefined {
  if (invalid.length === 0) return undefined;
  const keys = invalid.map(
    ({ key, position, message }) => `${key} (${formatPosition(position)}: ${message})`,
  );
  return new CimletError(
    'invalid-manifest',
    `source ${source}: revision ${revision} is in force, except for ${nameSome(keys)}`,
    { hint: 'mend these manifests; until then what they declared stays as it is' },
  );
}

function listProblems(problems: readonly Problem[]): string {
  return nameSome(
    problems.map((problem) => `${formatPosition(problem.position)}: ${describeProblem(problem)}`),
  );
}

/** With the suggestion, as `cimlet validate` prints it. */
function describeProblem({ message, suggestion }: Problem): string {
  return suggestion === undefined ? message : `${message} (${suggestion})`;
}

function nameSome(texts: readonly string[]): string {
  const more = texts.length > NAMED ? `; and ${texts.length - NAMED} more` : '';
  return texts.slice(0, NAMED).join('; ') + more;
}
