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
  isPair,
  isScalar,
  isSeq,
  Lexer,
  LineCounter,
  type Node,
  type ParsedNode,
  parseAllDocuments,
} from 'yaml';
import { escapeText, type FieldPath, quote } from './field-path.ts';

const MOST_ALIASES = 100;
const MOST_EXPLICIT_KEYS = 20;
const MOST_FAULTS = 20;
const MOST_DEPTH = 100;
const LONGEST_MESSAGE = 200;

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
  let refusedLast: number | undefined;
  const refuse = (offset: number, message: string): void => {
    // One mistake often breaks several rules in the same place.
    if (offset === refusedLast || stream.faults.length === MOST_FAULTS) return;
    refusedLast = offset;
    stream.faults.push({ ...placeAt(offset), message: escapeText(message, LONGEST_MESSAGE) });
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
    for (const { pos, message } of complaints) refuse(pos[0], inOtherWords(message));
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
      // How the library reports what aliases multiply.
      if (!(error instanceof ReferenceError)) throw error;
      refuse(contents.range[0], error.message);
    }
  }
  return stream;
}

/** What the library says in the grammar's terms, for those who wrote something else than they meant. */
const WORDS: Readonly<Record<string, string>> = {
  'Nested mappings are not allowed in compact mappings':
    'a key stands inside of a value; is a line indented too far, or should a text with `: ` be quoted?',
  'Implicit map keys need to be followed by map values': 'a key without `:` after it',
  'Implicit keys need to be on a single line': 'a key that goes on over lines; is `:` missing after it?',
  'Tabs are not allowed as indentation': 'tabs are not allowed as indentation; use spaces',
  'Missing closing "quote': 'the closing `"` is missing',
  "Missing closing 'quote": "the closing `'` is missing",
};

function inOtherWords(message: string): string {
  return WORDS[message] ?? message;
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

/** Looks, in the order of the text, for what the library lets pass or finds too slowly. False when something was refused. */
function checkTree(root: ParsedNode, refuse: (offset: number, message: string) => void): boolean {
  const anchors = new Map<string, 'open' | 'closed'>();
  let aliases = 0;
  let sound = true;
  const complain = (node: unknown, message: string): void => {
    sound = false;
    refuse(startOf(node, 0), message);
  };
  const check = (node: unknown, depth: number): void => {
    if (isAlias(node)) {
      const anchor = anchors.get(node.source);
      if (anchor === undefined)
        complain(node, `the alias *${node.source} has no anchor &${node.source} before it`);
      else if (anchor === 'open') complain(node, `the alias *${node.source} stands inside its own anchor`);
      else if (++aliases > MOST_ALIASES) complain(node, `more than ${MOST_ALIASES} aliases`);
      return;
    }
    if (!isMap(node) && !isSeq(node)) {
      if (isScalar(node) && node.anchor !== undefined) anchors.set(node.anchor, 'closed');
      return;
    }
    if (depth > MOST_DEPTH) {
      complain(node, 'nested too deeply');
      return;
    }
    if (node.anchor !== undefined) anchors.set(node.anchor, 'open');
    const keys = new Set<string>();
    for (const item of node.items) {
      if (!isPair(item)) {
        check(item, depth + 1);
        continue;
      }
      check(item.key, depth + 1);
      const key = isScalar(item.key) ? String(item.key.value) : undefined;
      if (key !== undefined && keys.has(key)) complain(item.key, `duplicate key ${quote(key)}`);
      if (key !== undefined) keys.add(key);
      check(item.value, depth + 1);
    }
    if (node.anchor !== undefined) anchors.set(node.anchor, 'closed');
  };
  check(root, 0);
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
