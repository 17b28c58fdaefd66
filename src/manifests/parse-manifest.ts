/** One file of manifests: its documents as resources, and what is wrong with them on their own. */

import { createHash } from 'node:crypto';
import { dirname } from 'node:path';
import { formatField } from './field-path.ts';
import type { ManifestFile } from './find-files.ts';
import type { Issue } from './issues.ts';
import { placeReference, type Referrer, referencesOf } from './references.ts';
import type { Kind, Problem, Resource, ResourceKey } from './resources.ts';
import { didYouMean } from './suggest.ts';
import { checkManifest, KINDS } from './validate.ts';
import { type Place, parseYaml, type YamlDocument } from './yaml-stream.ts';

export interface ParsedManifest {
  /** sha256 of its bytes, in hexadecimal. */
  digest: string;
  documents: number;
  /** The valid documents. */
  referrers: Referrer[];
  problems: Problem[];
  /** Keys of resources that are declared, but not validly. */
  broken: string[];
  /** Labels of the hosts that those of them which have a name say they are for. */
  invalidHosts: Map<ResourceKey, Readonly<Record<string, string>>>;
}

/** Throws nothing: what is wrong comes back as problems. */
export function parseManifest(file: ManifestFile, bytes: Buffer): ParsedManifest {
  const digest = createHash('sha256').update(bytes).digest('hex');
  const parsed: ParsedManifest = {
    digest,
    documents: 0,
    referrers: [],
    problems: [],
    broken: [],
    invalidHosts: new Map(),
  };
  const report = (message: string, place: Place) =>
    parsed.problems.push({ position: { file: file.name, ...place }, field: '', code: 'syntax', message });
  const text = decodeText(bytes);
  if (text === undefined) {
    report(`${file.name} isn't UTF-8 text; save it as UTF-8`, { line: 1, column: 1 });
    return parsed;
  }
  const { documents, faults } = parseYaml(text);
  for (const { message, ...place } of faults) report(message, place);
  for (const document of documents) addDocument(parsed, file, document);
  parsed.documents = documents.length;
  return parsed;
}

/** The same manifest, of the same name, in another folder. */
export function moveManifest(parsed: ParsedManifest, file: ManifestFile): ParsedManifest {
  const baseDirectory = baseDirectoryOf(file);
  const move = ({ resource, references }: Referrer): Referrer => ({
    resource: { ...resource, baseDirectory },
    references,
  });
  return { ...parsed, referrers: parsed.referrers.map(move) };
}

function baseDirectoryOf({ path }: ManifestFile): string {
  return path === '-' ? process.cwd() : dirname(path);
}

function addDocument(parsed: ParsedManifest, file: ManifestFile, document: YamlDocument): void {
  const position = (place: Place) => ({ file: file.name, line: place.line, column: place.column });
  const { kind, issues } = checkManifest(document.data);
  const resource = kind === undefined ? undefined : keyOf(kind, document.data, issues);
  for (const { path, at, code, message, suggestion } of issues) {
    const place = at === 'key' ? document.placeOfKey(path) : document.placeOf(path);
    parsed.problems.push({
      position: position(place),
      resource,
      field: formatField(path),
      code,
      message,
      suggestion: didYouMean(suggestion),
    });
  }
  if (resource !== undefined && issues.length > 0)
    parsed.invalidHosts.set(resource, matchLabelsOf(document.data, issues));
  if (kind === undefined || issues.length > 0) {
    const { metadata } = (document.data ?? {}) as { metadata?: { name?: unknown } | null };
    // A misspelt kind may have meant any of them.
    for (const meant of kind === undefined ? KINDS : [kind])
      parsed.broken.push(`${meant}/${String(metadata?.name)}`);
    return;
  }
  const { metadata, spec } = document.data as Pick<Resource, 'metadata' | 'spec'>;
  // The schema of the kind has checked that they belong together.
  const valid = {
    kind,
    metadata,
    spec,
    position: position(document.start),
    baseDirectory: baseDirectoryOf(file),
  } as Resource;
  const references = referencesOf(valid).map((reference) =>
    placeReference(reference, position(document.placeOf(reference.field))),
  );
  parsed.referrers.push({ resource: valid, references });
}

/** Undefined when the document has no valid name. */
function keyOf(kind: Kind, data: unknown, issues: readonly Issue[]): ResourceKey | undefined {
  const { metadata } = data as { metadata?: { name?: unknown } | null };
  const name = metadata?.name;
  const isMisnamed = issues.some(({ path }) => path.join('.') === 'metadata.name');
  return typeof name !== 'string' || isMisnamed ? undefined : `${kind}/${name}`;
}

/** Empty, for all hosts, unless what it says of hosts is valid. */
function matchLabelsOf(data: unknown, issues: readonly Issue[]): Readonly<Record<string, string>> {
  const { spec } = data as { spec?: { hosts?: { matchLabels?: Record<string, string> } } | null };
  const isUnsound = issues.some(({ path }) => path.length < 2 || (path[0] === 'spec' && path[1] === 'hosts'));
  return isUnsound ? {} : (spec?.hosts?.matchLabels ?? {});
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
