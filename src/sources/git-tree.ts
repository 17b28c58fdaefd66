/**
 * Which files a commit's tree has, as they are to be written: only what any host can write, and no links. A link to a
 * file of the same repository becomes a copy of it; others are left out, and said to be.
 */

import { posix } from 'node:path';
import { CimletError } from '../errors.ts';
import { readBlobs } from './git-blobs.ts';
import type { GitRepository } from './git-repository.ts';
import { whyUnwritable } from './path-rules.ts';

const MOST_FILES = 50_000;
const MOST_LINKS_IN_A_ROW = 8;
const LONGEST_LINK = 4096;
const MOST_WARNINGS = 20;

const REGULAR = /^100/;
const LINK = '120000';
const SUBMODULE = '160000';

interface TreeEntry {
  mode: string;
  object: string;
  path: string;
}

export interface TreeFile {
  path: string;
  blob: string;
}

export interface SelectedTree {
  files: TreeFile[];
  warnings: string[];
}

export interface TreeSelection {
  commit: string;
  /** Folder that must be there; empty for the root. */
  path: string;
  /** Whether only what is below `path` is looked at. */
  isWithinPath: boolean;
  takes: (path: string) => boolean;
}

/**
 * Selects files, and fetches their blobs. Throws `not-found` when the commit has no such folder, `invalid-manifest` for
 * more files than manifests come with.
 */
export async function selectTree(
  repository: GitRepository,
  selection: TreeSelection,
  signal: AbortSignal,
): Promise<SelectedTree> {
  const { commit, path } = selection;
  const entries = await listTree(repository, selection, signal);
  if (path !== '' && !entries.some((entry) => entry.path.startsWith(`${path}/`))) {
    throw new CimletError('not-found', `commit ${commit} has no folder ${path}`, {
      hint: 'what was accepted before stays in force; change path, or push the folder again',
    });
  }
  const warnings: string[] = [];
  const taken = keepWritable(
    entries.filter((entry) => selection.takes(entry.path)),
    warnings,
  );
  if (taken.length > MOST_FILES) {
    throw new CimletError('invalid-manifest', `commit ${commit} has more than ${MOST_FILES} files to take`, {
      hint: 'take fewer with path, include and ignore',
    });
  }
  const files: TreeFile[] = [];
  const links: TreeEntry[] = [];
  for (const entry of taken) {
    if (REGULAR.test(entry.mode)) files.push({ path: entry.path, blob: entry.object });
    else if (entry.mode === LINK) links.push(entry);
    else if (entry.mode === SUBMODULE) warnings.push(`${entry.path} is left out: submodules aren't fetched`);
  }
  await repository.fetchBlobs(commit, new Set(taken.map(({ object }) => object)), signal);
  files.push(...(await followLinks(repository, commit, links, warnings, signal)));
  return { files, warnings: shorten(warnings) };
}

async function listTree(
  repository: GitRepository,
  { commit, path, isWithinPath }: TreeSelection,
  signal: AbortSignal,
): Promise<TreeEntry[]> {
  const below = isWithinPath && path !== '' ? [`${path}/`] : [];
  const args = ['ls-tree', '-r', '-z', '--full-tree', commit, '--', ...below];
  return parseTree(await repository.run(`list files of ${commit}`, args, signal));
}

/** `<mode> <type> <object>\t<path>\0`, again and again. Names needn't be UTF-8: those that aren't hold U+FFFD here. */
function parseTree(output: Buffer): TreeEntry[] {
  return output
    .toString('utf8')
    .split('\0')
    .filter((line) => line !== '')
    .map((line) => {
      const tab = line.indexOf('\t');
      const [mode = '', , object = ''] = line.slice(0, tab).split(' ');
      return { mode, object, path: line.slice(tab + 1) };
    });
}

function keepWritable(entries: TreeEntry[], warnings: string[]): TreeEntry[] {
  const taken = new Map<string, string>();
  return entries.filter(({ path }) => {
    const reason = whyUnwritable(path) ?? whyClashing(path, taken);
    if (reason !== undefined) warnings.push(`${JSON.stringify(path)} is left out: ${reason}`);
    return reason === undefined;
  });
}

/**
 * Names that differ in case only are one on Windows: the first counts. `taken` holds each path and each of its folders,
 * without case, and how it is spelled; folders end in a slash.
 */
function whyClashing(path: string, taken: Map<string, string>): string | undefined {
  const names = path.split('/');
  const steps = names.map(
    (_, index) => names.slice(0, index + 1).join('/') + (index < names.length - 1 ? '/' : ''),
  );
  const key = (step: string): string => step.replace(/\/$/, '').toLowerCase();
  const clashes = steps.some((step) => {
    const spelling = taken.get(key(step));
    return spelling !== undefined && (spelling !== step || step === path);
  });
  if (clashes) return 'it differs from another path in case only, which is one path on Windows';
  for (const step of steps) taken.set(key(step), step);
  return undefined;
}

/** Reads where links lead, all of them at once, and again for links that lead to links. */
async function followLinks(
  repository: GitRepository,
  commit: string,
  links: readonly TreeEntry[],
  warnings: string[],
  signal: AbortSignal,
): Promise<TreeFile[]> {
  const files: TreeFile[] = [];
  const leaveOut = (path: string, reason: string) =>
    warnings.push(`${path} is left out: it is a link ${reason}`);
  let following = links.map((link) => ({ path: link.path, at: link }));
  for (let step = 0; following.length > 0; step++) {
    if (step === MOST_LINKS_IN_A_ROW) {
      for (const { path } of following) leaveOut(path, 'to links without end');
      break;
    }
    const texts = await readLinks(repository, new Set(following.map(({ at }) => at.object)), signal);
    const led = following.flatMap(({ path, at }) => {
      const target = targetOf(at.path, texts.get(at.object));
      if (target === undefined) leaveOut(path, 'out of the repository');
      return target === undefined ? [] : [{ path, target }];
    });
    const found = await findEntries(repository, commit, new Set(led.map(({ target }) => target)), signal);
    following = [];
    for (const { path, target } of led) {
      const entry = found.get(target);
      if (entry?.mode === LINK) following.push({ path, at: entry });
      else if (entry !== undefined && REGULAR.test(entry.mode)) files.push({ path, blob: entry.object });
      else leaveOut(path, 'to a folder or to nothing');
    }
    const blobs = [...found.values()].filter(({ mode }) => mode === LINK || REGULAR.test(mode));
    await repository.fetchBlobs(commit, new Set(blobs.map(({ object }) => object)), signal);
  }
  return files;
}

async function readLinks(
  repository: GitRepository,
  objects: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<Map<string, string>> {
  const texts = new Map<string, string>();
  await readBlobs(repository, [...objects], signal, async (object, size, bytes) => {
    const chunks: Buffer[] = [];
    for await (const chunk of bytes) if (size <= LONGEST_LINK) chunks.push(chunk);
    texts.set(object, Buffer.concat(chunks).toString());
  });
  return texts;
}

/** Below the root of the repository; undefined for a link out of it. */
function targetOf(path: string, text: string | undefined): string | undefined {
  if (text === undefined || text === '' || text.startsWith('/') || text.includes('\0')) return undefined;
  const target = posix.join(posix.dirname(path), text).replace(/\/$/, '');
  return target === '..' || target.startsWith('../') || target === '.' ? undefined : target;
}

async function findEntries(
  repository: GitRepository,
  commit: string,
  paths: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<Map<string, TreeEntry>> {
  if (paths.size === 0) return new Map();
  // Without -r a path that is a folder is listed itself. All links at once may be more than an argument list takes.
  const found = new Map<string, TreeEntry>();
  const all = [...paths];
  for (let start = 0; start < all.length; start += 100) {
    const args = ['ls-tree', '-z', '--full-tree', commit, '--', ...all.slice(start, start + 100)];
    const entries = parseTree(await repository.run(`look up links of ${commit}`, args, signal));
    for (const entry of entries) found.set(entry.path, entry);
  }
  return found;
}

function shorten(warnings: string[]): string[] {
  const more = warnings.length - MOST_WARNINGS;
  return more <= 0 ? warnings : [...warnings.slice(0, MOST_WARNINGS), `and ${more} more of that kind`];
}
