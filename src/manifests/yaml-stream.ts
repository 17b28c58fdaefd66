/**
 * YAML 1.2 streams (JSON is a subset) as plain data with positions. The one file that knows the yaml library.
 *
 * Some valid YAML is refused, since hostile text could otherwise hang or exhaust the process, or mean more than it
 * shows: tags beyond the core schema, aliases beyond a limit, keys that aren't scalars, more than a few explicit keys
 * (`? key`; nested ones take the parser exponential time).
 */

import {
  isAlias,
  isMap,
  isScalar,
  isSeq,
  Lexer,
  LineCounter,
  type Node,
  type ParsedNode,
  parseAllDocuments,
} from 'yaml';
import { type FieldPath, quote } from './field-path.ts';

const MOST_ALIASES = 100;
const MOST_EXPLICIT_KEYS = 20;
const MOST_FAULTS = 20;
const MOST_DEPTH = 100;

export interface Place {
  /** 1-based. */
  line: number;
  column: number;
}

export interface YamlFault extends Place {
  message: string;
}

export interface YamlDocument {
  data: unknown;
  /** Where the document's content begins. */
  start: Place;
  /**
   * Where a value is: a scalar itself, the key of anything else (and of an empty value, which is nowhere to be seen).
   * The deepest place that exists when the path doesn't.
   */
  placeOf(path: FieldPath): Place;
  /** Where the key of a value begins; of a sequence's item, the item. */
  placeOfKey(path: FieldPath): Place;
}

export interface YamlStream {
  /** Documents without faults, in order; empty ones are left out. */
  documents: YamlDocument[];
  faults: YamlFault[];
}

export function parseYaml(text: string): YamlStream {
  const lines = new LineCounter();
  const placeAt = (offset: number): Place => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(line, 1), column: Math.max(col, 1) };
  };
  const stream: YamlStream = { documents: [], faults: [] };
  const refuse = (offset: number, message: string): void => {
    if (stream.faults.length < MOST_FAULTS) stream.faults.push({ ...placeAt(offset), message });
  };

  const explicitKey = excessiveExplicitKey(text);
  if (explicitKey !== undefined) {
    const before = text.slice(0, explicitKey).split('\n');
    const place = { line: before.length, column: (before.at(-1)?.length ?? 0) + 1 };
    return {
      documents: [],
      faults: [{ ...place, message: 'too many explicit keys (`? key`); write `key: value`' }],
    };
  }
  for (const document of parseOrRefuse(text, lines, refuse)) {
    // With warnings come tags that nobody resolves.
    const complaints = [...document.errors, ...document.warnings];
    for (const { pos, message } of complaints) refuse(pos[0], message);
    const contents = document.contents;
    if (complaints.length > 0 || contents === null || (isScalar(contents) && contents.value === null))
      continue;
    if (!checkTree(contents, refuse)) continue;
    try {
      const data: unknown = document.toJS({ maxAliasCount: MOST_ALIASES });
      const resolve = (node: unknown): unknown => (isAlias(node) ? node.resolve(document) : node);
      stream.documents.push({
        data,
        start: placeAt(contents.range[0]),
        placeOf: (path) => placeAt(offsetOf(contents, path, resolve, 'value')),
        placeOfKey: (path) => placeAt(offsetOf(contents, path, resolve, 'key')),
      });
    } catch (error) {
      // How the library reports unresolved and excessive aliases.
      if (!(error instanceof ReferenceError)) throw error;
      refuse(contents.range[0], error.message);
    }
  }
  return stream;
}

function parseOrRefuse(
  text: string,
  lineCounter: LineCounter,
  refuse: (offset: number, message: string) => void,
) {
  try {
    const documents = parseAllDocuments(text, {
      lineCounter,
      version: '1.2',
      schema: 'core',
      resolveKnownTags: false,
      stringKeys: true,
      // Its check takes quadratic time; checkTree has one of its own.
      uniqueKeys: false,
      prettyErrors: false,
      logLevel: 'silent',
    });
    return [...documents];
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    refuse(0, 'nested too deeply');
    return [];
  }
}

/** Offset of the explicit key that is one too many. Looks closely only at text that may hold any. */
function excessiveExplicitKey(text: string): number | undefined {
  if (!/(^|[\s,[{:?-])\?(\s|$)/.test(text)) return undefined;
  let offset = 0;
  let count = 0;
  for (const token of new Lexer().lex(text)) {
    if (token === '?' && ++count > MOST_EXPLICIT_KEYS) return offset;
    // Three one-character tokens mark documents, flow errors and scalars, and stand for no text.
    if (token !== '\u0002' && token !== '\u0018' && token !== '\u001f') offset += token.length;
  }
  return undefined;
}

/** Duplicate keys, and nesting deeper than any manifest's. False when something was refused. */
function checkTree(root: ParsedNode, refuse: (offset: number, message: string) => void): boolean {
  let sound = true;
  const complain = (offset: number, message: string): void => {
    sound = false;
    refuse(offset, message);
  };
  const pending: { node: unknown; depth: number }[] = [{ node: root, depth: 0 }];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const { node, depth } = next;
    if (!isMap(node) && !isSeq(node)) continue;
    if (depth >= MOST_DEPTH) {
      complain(node.range?.[0] ?? 0, 'nested too deeply');
      break;
    }
    if (isSeq(node)) {
      for (const item of node.items) pending.push({ node: item, depth: depth + 1 });
      continue;
    }
    const seen = new Set<string>();
    for (const { key, value } of node.items) {
      const name = isScalar(key) ? String(key.value) : undefined;
      if (name !== undefined && seen.has(name)) complain(startOf(key, 0), `duplicate key ${quote(name)}`);
      if (name !== undefined) seen.add(name);
      pending.push({ node: value, depth: depth + 1 });
    }
  }
  return sound;
}

function offsetOf(
  root: ParsedNode,
  path: FieldPath,
  resolve: (node: unknown) => unknown,
  want: 'key' | 'value',
): number {
  let offset = root.range[0];
  let node: unknown = root;
  for (const [index, step] of path.entries()) {
    const isLast = index === path.length - 1;
    const container = resolve(node);
    if (isMap(container)) {
      const pair = container.items.find(({ key }) => isScalar(key) && String(key.value) === String(step));
      if (pair === undefined) return offset;
      offset = startOf(pair.key, offset);
      node = pair.value;
      if (isScalar(node) ? node.value !== null && !(isLast && want === 'key') : isAlias(node)) {
        offset = startOf(node, offset);
      }
    } else if (isSeq(container)) {
      node = container.items[Number(step)];
      offset = startOf(node, offset);
    } else {
      return offset;
    }
  }
  return offset;
}

function startOf(node: unknown, fallback: number): number {
  return (node as Node | null | undefined)?.range?.[0] ?? fallback;
}
