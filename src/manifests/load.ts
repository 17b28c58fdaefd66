/** Text to resources: reads files, has each parsed, then checks what holds between them. */

import { createHash } from 'node:crypto';
import { CimletError, classify } from '../errors.ts';
import {
  findManifestFiles,
  type ManifestContent,
  type ManifestFile,
  type ManifestInput,
  MOST_BYTES,
  readManifestFile,
  tooLarge,
} from './find-files.ts';
import { moveManifest, type ParsedManifest, parseManifest } from './parse-manifest.ts';
import { checkReferences, type Referrer } from './references.ts';
import {
  type LoadedManifests,
  type Problem,
  type Resource,
  type ResourceKey,
  resourceKey,
  type SourceFile,
} from './resources.ts';

export interface LoadOptions {
  /** Needed when `-` is among the inputs. */
  readStdin?: (() => Promise<string>) | undefined;
  signal?: AbortSignal | undefined;
}

/** Files read at the same time. */
const READ_AHEAD = 32;

/**
 * Loads files, folders (`*.yaml`, `*.yml`, `*.json`, recursively; hidden ones are skipped) and `-`, standard input.
 * Whatever is wrong with their content comes back as problems, in the order of the files; `resources` holds the valid
 * documents, the first of each name. Throws only when an input isn't there or can't be read (`not-found`, `access-denied`), or `cancelled`.
 */
export async function loadManifests(
  inputs: readonly string[],
  options: LoadOptions = {},
): Promise<LoadedManifests> {
  const { signal } = options;
  const reading = new Reading();
  try {
    for (const name of new Set(inputs)) {
      signal?.throwIfAborted();
      const input = await findManifestFiles(name, signal);
      await reading.readInput(input, options);
    }
  } catch (error) {
    throw classify(error, 'read manifests');
  }
  return reading.finish();
}

/** As `loadManifests` of the folder they are in, of files that were read before. None are no problem here. */
export function loadManifestContents(contents: readonly ManifestContent[]): LoadedManifests {
  const reading = new Reading();
  reading.readContents(contents);
  return reading.finish();
}

/** A source hands out the same bytes for a file that didn't change: of thousands few are parsed again. */
const parsedBefore = new WeakMap<Buffer, { file: ManifestFile; parsed: ParsedManifest }>();

function parseUnlessKnown({ bytes, ...file }: ManifestContent): ParsedManifest {
  const known = parsedBefore.get(bytes);
  if (known?.file.name === file.name && known.file.path === file.path) return known.parsed;
  // Each revision of a repository is in a folder of its own.
  const parsed =
    known?.file.name === file.name ? moveManifest(known.parsed, file) : parseManifest(file, bytes);
  parsedBefore.set(bytes, { file, parsed });
  return parsed;
}

class Reading {
  readonly #referrers: Referrer[] = [];
  readonly #problems: Problem[] = [];
  readonly #files: SourceFile[] = [];
  readonly #revision = createHash('sha256');
  /** Of the files' names, for the problems. */
  readonly #order = new Map<string, number>();
  readonly #paths = new Set<string>();
  readonly #invalidHosts: Map<ResourceKey, Readonly<Record<string, string>>> = new Map();
  /** Keys of resources that are declared, but not validly. */
  readonly #broken = new Set<string>();

  async readInput(input: ManifestInput, options: LoadOptions): Promise<void> {
    const { signal } = options;
    for (const { name, message } of input.unreadable) this.#report(name, 'unreadable', message);
    for (const { name } of [...input.unreadable, ...input.files]) {
      if (!this.#order.has(name)) this.#order.set(name, this.#order.size);
    }
    const files = input.files.filter(({ path }) => !this.#paths.has(path));
    let documents = input.files.length - files.length;
    const problemsBefore = this.#problems.length - input.unreadable.length;
    for (let start = 0; start < files.length; start += READ_AHEAD) {
      signal?.throwIfAborted();
      const batch = files.slice(start, start + READ_AHEAD);
      const contents = await Promise.all(batch.map((file) => this.#read(file, options)));
      for (const [index, file] of batch.entries()) {
        const bytes = contents[index];
        if (bytes instanceof CimletError) this.#report(file.name, 'unreadable', bytes.message);
        else if (bytes !== undefined) documents += this.#add(file, parseManifest(file, bytes));
      }
    }
    if (documents === 0 && this.#problems.length === problemsBefore) {
      const searched = input.isFolder ? ' (searched for *.yaml, *.yml and *.json)' : '';
      this.#report(input.name, 'unreadable', `${input.name} holds no manifest${searched}`);
    }
  }

  readContents(contents: readonly ManifestContent[]): void {
    for (const [index, content] of contents.entries()) {
      this.#order.set(content.name, index);
      this.#add(content, parseUnlessKnown(content));
    }
  }

  async #read(file: ManifestFile, options: LoadOptions): Promise<Buffer | CimletError> {
    if (file.path === '-') {
      if (options.readStdin === undefined) throw new Error('loading `-` needs readStdin');
      const bytes = Buffer.from(await options.readStdin());
      return bytes.length > MOST_BYTES ? tooLarge('standard input') : bytes;
    }
    try {
      return await readManifestFile(file, options.signal);
    } catch (error) {
      if (error instanceof CimletError && error.code !== 'cancelled') return error;
      throw error;
    }
  }

  /** Returns how many documents the file holds. */
  #add(file: ManifestFile, parsed: ParsedManifest): number {
    this.#paths.add(file.path);
    this.#files.push({ path: file.path, digest: `sha256:${parsed.digest}` });
    this.#revision.update(`${JSON.stringify(file.relativeName)} ${parsed.digest}\n`);
    this.#problems.push(...parsed.problems);
    this.#referrers.push(...parsed.referrers);
    for (const key of parsed.broken) this.#broken.add(key);
    for (const [key, matchLabels] of parsed.invalidHosts) this.#invalidHosts.set(key, matchLabels);
    return parsed.documents;
  }

  #report(file: string, code: Problem['code'], message: string): void {
    this.#problems.push({ position: { file, line: 1, column: 1 }, field: '', code, message });
  }

  finish(): LoadedManifests {
    const problems = [...this.#problems, ...checkReferences(this.#referrers, this.#broken)];
    const rank = ({ position }: Problem): number => this.#order.get(position.file) ?? 0;
    problems.sort(
      (a, b) =>
        rank(a) - rank(b) || a.position.line - b.position.line || a.position.column - b.position.column,
    );
    const firsts = new Map<string, Resource>();
    for (const { resource } of this.#referrers) {
      const key = resourceKey(resource);
      if (!firsts.has(key)) firsts.set(key, resource);
    }
    return {
      resources: [...firsts.values()],
      problems,
      invalidHosts: this.#invalidHosts,
      files: this.#files,
      revision: `folder@sha256:${this.#revision.digest('hex')}`,
    };
  }
}
