/** From what a source follows to a commit, by what the server says of its references. The one file that knows semver. */

import { Range, rcompare, SemVer } from 'semver';
import { CimletError } from '../errors.ts';
import type { GitRef } from '../manifests/types.gen.ts';
import type { GitAddress } from './git-address.ts';
import type { Git } from './git-command.ts';

export interface ResolvedRef {
  /** Before the `@` in a revision's name: branch or tag; none for a commit. */
  name?: string | undefined;
  commit: string;
  /** The tag that was followed; `object` differs from the commit when the tag is annotated. */
  tag?: { name: string; object: string } | undefined;
}

/** Object IDs by full name, e.g. `refs/heads/main`; `refs/tags/v1^{}` is the commit of an annotated tag. */
type References = ReadonlyMap<string, string>;

/**
 * Asks the server what `ref` is now. Throws `not-found` when it has no such branch, tag or version, `invalid-manifest` for
 * a range that is none, and as git fails.
 */
export async function resolveRef(
  git: Git,
  address: GitAddress,
  ref: GitRef | undefined,
  signal: AbortSignal,
): Promise<ResolvedRef> {
  if (ref?.commit !== undefined) return { commit: ref.commit };
  const list = (...patterns: string[]) => listReferences(git, address, patterns, signal);
  if (ref?.branch !== undefined) {
    const commit = (await list(`refs/heads/${ref.branch}`)).get(`refs/heads/${ref.branch}`);
    if (commit === undefined) throw missing(address, `branch ${ref.branch}`);
    return { name: ref.branch, commit };
  }
  if (ref?.tag !== undefined) {
    const references = await list(`refs/tags/${ref.tag}`, `refs/tags/${ref.tag}^{}`);
    return tagOf(references, ref.tag) ?? fail(missing(address, `tag ${ref.tag}`));
  }
  if (ref?.semver !== undefined) {
    const references = await list('refs/tags/*');
    const tag = highestVersion(references, parseRange(ref.semver));
    const found = tag === undefined ? undefined : tagOf(references, tag);
    return found ?? fail(missing(address, `tag with a version in ${ref.semver}`));
  }
  const references = await list('HEAD');
  const commit = references.get('HEAD');
  if (commit === undefined) throw missing(address, 'commit yet, or no default branch');
  return { name: references.get('HEAD target')?.replace('refs/heads/', '') ?? 'HEAD', commit };
}

async function listReferences(
  git: Git,
  { url }: GitAddress,
  patterns: string[],
  signal: AbortSignal,
): Promise<References> {
  const output = await git.run({
    args: ['ls-remote', '--quiet', '--symref', '--', url, ...patterns],
    operation: `list references of ${url}`,
    signal,
  });
  const references = new Map<string, string>();
  for (const line of output.toString().split('\n')) {
    const [value = '', name = ''] = line.split('\t');
    if (value.startsWith('ref: ')) references.set(`${name} target`, value.slice('ref: '.length));
    else if (/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(value)) references.set(name, value);
  }
  return references;
}

function tagOf(references: References, name: string): ResolvedRef | undefined {
  const object = references.get(`refs/tags/${name}`);
  if (object === undefined) return undefined;
  return { name, commit: references.get(`refs/tags/${name}^{}`) ?? object, tag: { name, object } };
}

function parseRange(text: string): Range {
  try {
    return new Range(text);
  } catch (error) {
    throw new CimletError('invalid-manifest', `${JSON.stringify(text)} is no range of versions`, {
      hint: 'a range is such as ">=1.2 <2", "1.x" or "~1.4.0"',
      cause: error,
    });
  }
}

/** Tags are versions with or without a `v`. Of tags with the same version the last by name, so that it is always the same. */
function highestVersion(references: References, range: Range): string | undefined {
  const candidates = [...references.keys()]
    .filter((name) => name.startsWith('refs/tags/') && !name.endsWith('^{}'))
    .map((name) => name.slice('refs/tags/'.length))
    .flatMap((tag) => {
      const version = parseVersion(tag);
      return version !== undefined && range.test(version) ? [{ tag, version }] : [];
    });
  candidates.sort(
    (a, b) => rcompare(a.version, b.version) || b.version.compareBuild(a.version) || (a.tag < b.tag ? 1 : -1),
  );
  return candidates[0]?.tag;
}

function parseVersion(tag: string): SemVer | undefined {
  try {
    return new SemVer(tag);
  } catch (error) {
    if (error instanceof TypeError) return undefined;
    throw error;
  }
}

function missing({ url }: GitAddress, what: string): CimletError {
  return new CimletError('not-found', `git repository ${url} has no ${what}`, {
    hint: 'what was accepted before stays in force; change ref, or push it again',
  });
}

function fail(error: CimletError): never {
  throw error;
}
