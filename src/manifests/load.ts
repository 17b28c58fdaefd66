/** Text to resources: reads files, checks each document by its schema, then what holds between them. */

import { createHash } from 'node:crypto';
import { dirname } from 'node:path';
import { CimletError, classify } from '../errors.ts';
import { findUnsupported } from './features.ts';
import { formatField } from './field-path.ts';
import {
  findManifestFiles,
  type ManifestContent,
  type ManifestFile,
  type ManifestInput,
  MOST_BYTES,
  readManifestFile,
  tooLarge,
} from './find-files.ts';
import type { Issue } from './issues.ts';
import { checkReferences, placeReference, type Referrer, referencesOf } from './references.ts';
import {
  type Kind,
  type LoadedManifests,
  type Problem,
  type Resource,
  type ResourceKey,
  resourceKey,
  type SourceFile,
} from './resources.ts';
import { didYouMean } from './suggest.ts';
import { checkManifest, KINDS } from './validate.ts';
import { type Place, parseYaml, type YamlDocument } from './yaml-stream.ts';

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

class Reading {
  readonly #referrers: Referrer[] = [];
  readonly #problems: Problem[] = [];
  readonly #files: SourceFile[] = [];
  readonly #revision = createHash('sha256');
  /** Of the files' names, for the problems. */
  readonly #order = new Map<string, number>();
  readonly #paths = new Set<string>();
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
        else if (bytes !== undefined) documents += this.#readFile(file, bytes);
      }
    }
    if (documents === 0 && this.#problems.length === problemsBefore) {
      const searched = input.isFolder ? ' (searched for *.yaml, *.yml and *.json)' : '';
      this.#report(input.name, 'unreadable', `${input.name} holds no manifest${searched}`);
    }
  }

  readContents(contents: readonly ManifestContent[]): void {
    for (const [index, { bytes, ...file }] of contents.entries()) {
      this.#order.set(file.name, index);
      this.#readFile(file, bytes);
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
  #readFile(file: ManifestFile, bytes: Buffer): number {
    const digest = createHash('sha256').update(bytes).digest('hex');
    this.#paths.add(file.path);
    this.#files.push({ path: file.path, digest: `sha256:${digest}` });
    this.#revision.update(`${JSON.stringify(file.relativeName)} ${digest}\n`);
    const text = decodeText(bytes);
    if (text === undefined) {
      const message = `${file.name} isn't UTF-8 text; save it as UTF-8`;
      this.#report(file.name, 'syntax', message);
      return 0;
    }
    const { documents, faults } = parseYaml(text);
    for (const { message, ...place } of faults) this.#report(file.name, 'syntax', message, place);
    for (const document of documents) this.#readDocument(file, document);
    return documents.length;
  }

  #readDocument(file: ManifestFile, document: YamlDocument): void {
    const position = (place: Place) => ({ file: file.name, line: place.line, column: place.column });
    const { kind, issues } = checkManifest(document.data);
    const resource = kind === undefined ? undefined : keyOf(kind, document.data, issues);
    for (const { path, at, code, message, suggestion } of issues) {
      const place = at === 'key' ? document.placeOfKey(path) : document.placeOf(path);
      this.#problems.push({
        position: position(place),
        resource,
        field: formatField(path),
        code,
        message,
        suggestion: didYouMean(suggestion),
      });
    }
    if (kind === undefined || issues.length > 0) {
      const { metadata } = (document.data ?? {}) as { metadata?: { name?: unknown } | null };
      // A misspelt kind may have meant any of them.
      for (const meant of kind === undefined ? KINDS : [kind])
        this.#broken.add(`${meant}/${String(metadata?.name)}`);
      return;
    }
    const { metadata, spec } = document.data as Pick<Resource, 'metadata' | 'spec'>;
    // The schema of the kind has checked that they belong together.
    const valid = {
      kind,
      metadata,
      spec,
      position: position(document.start),
      baseDirectory: file.path === '-' ? process.cwd() : dirname(file.path),
      unsupported: findUnsupported(kind, spec).map((path) => ({
        field: formatField(path),
        position: position(document.placeOfKey(path)),
      })),
    } as Resource;
    const references = referencesOf(valid).map((reference) =>
      placeReference(reference, position(document.placeOf(reference.field))),
    );
    this.#referrers.push({ resource: valid, references });
  }

  #report(file: string, code: Problem['code'], message: string, place: Place = { line: 1, column: 1 }): void {
    this.#problems.push({ position: { file, ...place }, field: '', code, message });
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
      files: this.#files,
      revision: `folder@sha256:${this.#revision.digest('hex')}`,
    };
  }
}

/** Undefined when the document has no valid name. */
function keyOf(kind: Kind, data: unknown, issues: readonly Issue[]): ResourceKey | undefined {
  const { metadata } = data as { metadata?: { name?: unknown } | null };
  const name = metadata?.name;
  const isMisnamed = issues.some(({ path }) => path.join('.') === 'metadata.name');
  return typeof name !== 'string' || isMisnamed ? undefined : `${kind}/${name}`;
}

/** Undefined when the bytes aren't UTF-8. A byte order mark is left out. */
function decodeText(bytes: Buffer): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    if (error instanceof TypeError) return undefined;
    throw error;
  }
}
