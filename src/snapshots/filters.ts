/**
 * Filters of snapshots, in the grammar of containerd's pkg/filters: selectors joined by commas, all of which must hold.
 *
 *   selector := field ('.' field)* [operator value]     without an operator: it is there
 *   field    := [A-Za-z0-9_]+ | quoted
 *   operator := '==' | '!=' | '~='                      equal, not equal, matches a regular expression
 *   value    := anything up to a comma or space | quoted
 *   quoted   := a Go string in "", of a regular expression in // or || as well
 *
 * Fields: name, parent, kind, labels.<key>. Unlike there, others are refused, and so is what is no regular expression.
 */

import { CimletError } from '../errors.ts';
import type { NamedSnapshot } from '../state/named-snapshots.ts';

export type Filter = (snapshot: NamedSnapshot) => boolean;

/** Throws `invalid-manifest` for what is no filter. An empty one lets everything through. */
export function parseFilter(text: string): Filter {
  if (text === '') return () => true;
  const scanner = new Scanner(text);
  const selectors: Filter[] = [];
  do selectors.push(readSelector(scanner));
  while (scanner.take(/,/y) !== undefined);
  if (!scanner.isAtEnd) throw scanner.refuse('a comma or the end is expected');
  return (snapshot) => selectors.every((holds) => holds(snapshot));
}

function readSelector(scanner: Scanner): Filter {
  const path = [readField(scanner)];
  while (scanner.take(/\./y) !== undefined) path.push(readField(scanner));
  const textOf = fieldOf(path, scanner);
  if (scanner.isAtEnd || scanner.sees(/,/y)) return (snapshot) => textOf(snapshot) !== undefined;
  const operator = scanner.take(/\s*([=!~]+)/y);
  if (operator === '==') {
    const value = readValue(scanner);
    return (snapshot) => textOf(snapshot) === value;
  }
  if (operator === '!=') {
    const value = readValue(scanner);
    return (snapshot) => (textOf(snapshot) ?? '') !== value;
  }
  if (operator !== '~=') throw scanner.refuse('==, != or ~= is expected');
  const pattern = patternOf(readValue(scanner, true), scanner);
  return (snapshot) => pattern.test(textOf(snapshot) ?? '');
}

function readField(scanner: Scanner): string {
  const field = scanner.take(/\s*([A-Za-z0-9_]+)/y) ?? scanner.quoted(['"']);
  if (field === undefined) throw scanner.refuse('a field is expected');
  return field;
}

function readValue(scanner: Scanner, isPattern = false): string {
  const value =
    scanner.quoted(isPattern ? ['"', '/', '|'] : ['"']) ??
    scanner.take(/\s*([^\s,.=!~"/|\p{C}][^\s,\p{C}]*)/uy);
  if (value === undefined) throw scanner.refuse('a value is expected');
  return value;
}

/** What a field says of a snapshot; undefined when it isn't there. */
function fieldOf(
  [field = '', ...more]: readonly string[],
  scanner: Scanner,
): (snapshot: NamedSnapshot) => string | undefined {
  if (field === 'labels' && more.length > 0) {
    const key = more.join('.');
    return ({ labels }) => (Object.hasOwn(labels, key) ? labels[key] : undefined);
  }
  if (more.length > 0 || !['name', 'parent', 'kind'].includes(field))
    throw scanner.refuse(`there is no field ${[field, ...more].join('.')}`);
  if (field === 'name') return ({ name }) => name;
  return field === 'kind' ? ({ kind }) => kind : ({ parent }) => parent ?? '';
}

function patternOf(source: string, scanner: Scanner): RegExp {
  try {
    return new RegExp(source, 'u');
  } catch (error) {
    throw scanner.refuse(error instanceof Error ? error.message : String(error));
  }
}

const HEX = '[0-9a-fA-F]';
const ESCAPE = new RegExp(
  `\\\\(?:([abfnrtv\\\\])|([0-3][0-7]{2})|x(${HEX}{2})|u(${HEX}{4})|U(${HEX}{8})|([^\\n]))|([^\\\\\\n])`,
  'uy',
);
const LETTERS: Record<string, string> = {
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
  '\\': '\\',
};

class Scanner {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  get isAtEnd(): boolean {
    return this.#at === this.#text.length;
  }

  sees(token: RegExp): boolean {
    token.lastIndex = this.#at;
    return token.test(this.#text);
  }

  /** What a sticky pattern matches here, or its group if it has one. */
  take(token: RegExp): string | undefined {
    token.lastIndex = this.#at;
    const match = token.exec(this.#text);
    if (match === null) return undefined;
    this.#at = token.lastIndex;
    return match[1] ?? match[0];
  }

  /** A Go string between any of the quotes; undefined where none begins. */
  quoted(quotes: readonly string[]): string | undefined {
    const quote = this.take(/\s*(["/|])/y);
    if (quote === undefined) return undefined;
    if (!quotes.includes(quote)) throw this.refuse(`${quote} quotes regular expressions only`);
    const parts: Buffer[] = [];
    while (this.#text[this.#at] !== quote) {
      ESCAPE.lastIndex = this.#at;
      const match = ESCAPE.exec(this.#text);
      if (match === null) throw this.refuse('what is quoted has no end');
      const [, letter, octal, byte, short, long, other, plain] = match;
      if (other !== undefined && other !== quote) throw this.refuse(`\\${other} means nothing`);
      const number = octal === undefined ? byte : Number.parseInt(octal, 8).toString(16);
      parts.push(
        number === undefined
          ? Buffer.from(this.#character(short ?? long) ?? LETTERS[letter ?? ''] ?? other ?? plain ?? '')
          : Buffer.of(Number.parseInt(number, 16)),
      );
      this.#at = ESCAPE.lastIndex;
    }
    this.#at++;
    return Buffer.concat(parts).toString();
  }

  #character(hex: string | undefined): string | undefined {
    const point = hex === undefined ? undefined : Number.parseInt(hex, 16);
    if (point !== undefined && point > 0x10ffff) throw this.refuse(`there is no character ${hex}`);
    return point === undefined ? undefined : String.fromCodePoint(point);
  }

  refuse(why: string): CimletError {
    const where = this.isAtEnd ? 'at its end' : `at ${JSON.stringify(this.#text.slice(this.#at))}`;
    return new CimletError('invalid-manifest', `filter ${JSON.stringify(this.#text)}: ${where}: ${why}`, {
      hint: 'for example: name==base, kind==committed, labels.team~=^a, labels."a/b"',
    });
  }
}
