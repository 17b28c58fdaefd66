/**
 * Conditions of access control entries, `(@User.Title == "PM" && Member_of {SID(BA)})`, into the postfix form that entries
 * carry. Sources: MS-DTYP 2.5.1.1 (grammar), 2.4.4.17.4 to 2.4.4.17.8 (tokens).
 */

import { named } from './sddl-names.ts';
import { encodeSid, SddlError, shown } from './sddl-sid.ts';

const SIGNATURE = Buffer.from('artx', 'latin1');
/** No condition anybody wrote comes near; the stack would. */
const MAX_DEPTH = 200;
const MAX_U64 = 2n ** 64n;
const MAX_I64 = 2n ** 63n;

const INT64 = 0x04;
const STRING = 0x10;
const OCTETS = 0x18;
const COMPOSITE = 0x50;
const SID = 0x51;
const LOCAL_ATTRIBUTE = 0xf8;
const ATTRIBUTES = { USER: 0xf9, RESOURCE: 0xfa, DEVICE: 0xfb };
const AND = 0xa0;
const OR = 0xa1;
const NOT = 0xa2;

const SIGNS: Record<string, number> = { '+': 1, '-': 2, '': 3 };
const OCTAL = 1;
const DECIMAL = 2;
const HEXADECIMAL = 3;

const MEMBERSHIPS = {
  MEMBER_OF: 0x89,
  DEVICE_MEMBER_OF: 0x8a,
  MEMBER_OF_ANY: 0x8b,
  DEVICE_MEMBER_OF_ANY: 0x8c,
  NOT_MEMBER_OF: 0x90,
  NOT_DEVICE_MEMBER_OF: 0x91,
  NOT_MEMBER_OF_ANY: 0x92,
  NOT_DEVICE_MEMBER_OF_ANY: 0x93,
};
const EXISTENCES = { EXISTS: 0x87, NOT_EXISTS: 0x8d };
const ORDERS = { '<': 0x82, '<=': 0x83, '>': 0x84, '>=': 0x85 };
const COMPARISONS = {
  ...ORDERS,
  '==': 0x80,
  '!=': 0x81,
  CONTAINS: 0x86,
  ANY_OF: 0x88,
  NOT_CONTAINS: 0x8e,
  NOT_ANY_OF: 0x8f,
};

const SPACE = /\s*/y;
const WORD = /[a-z_]+/iy;
const COMPARISON = /[=!<>]=|[<>]|(?:not_)?(?:contains|any_of)(?![\w:./])/iy;
/** Other characters are written as `%` and four hexadecimal digits. */
const LOCAL_NAME = /(?:[\w:./\u0080-\uffff]|%[0-9a-f]{4})+/iy;
const NAME = /@(user|device|resource)\.((?:[\w:./#$'*+\-;?@[\\\]^`{}~\u0080-\uffff]|%[0-9a-f]{4})+)/iy;
const NUMBER = /([+-]?)(0x[0-9a-f]+|\d+)/iy;
const TEXT = /"([^"]*)"/y;
/** A `#` within stands for the digit 0, as Windows reads it. */
const HEX = /#([0-9a-f#]*)/iy;
const SID_LITERAL = /sid\(\s*([^\s()]*)\s*\)/iy;

export interface Condition {
  bytes: Buffer;
  /** Where the text goes on behind it. */
  end: number;
}

/** Encodes the condition in parentheses at `start`. Throws SddlError. */
export function encodeCondition(text: string, start: number): Condition {
  const parser = new ConditionParser(text, start);
  parser.group();
  return { bytes: Buffer.concat([SIGNATURE, ...parser.tokens]), end: parser.at };
}

class ConditionParser {
  readonly tokens: Buffer[] = [];
  at: number;
  readonly #text: string;
  #depth = 0;

  constructor(text: string, start: number) {
    this.#text = text;
    this.at = start;
  }

  /** A condition in parentheses. `&&` binds closer than `||`; each goes from left to right. */
  group(): void {
    this.#within(() => this.#series('||', OR, () => this.#series('&&', AND, () => this.#factor())));
  }

  #within(inner: () => void): void {
    const open = this.at;
    this.#expect('(');
    if (++this.#depth > MAX_DEPTH) throw new SddlError('the condition is nested too deeply', open);
    this.#skipSpace();
    inner();
    this.#skipSpace();
    this.#expect(')');
    this.#depth--;
  }

  #series(operator: string, code: number, operand: () => void): void {
    operand();
    for (this.#skipSpace(); this.#text.startsWith(operator, this.at); this.#skipSpace()) {
      this.at += operator.length;
      this.#skipSpace();
      operand();
      this.#emit(code);
    }
  }

  #factor(): void {
    const isNegated = this.#text[this.at] === '!';
    if (isNegated) {
      this.at++;
      this.#skipSpace();
    }
    if (isNegated || this.#text[this.at] === '(') this.group();
    else this.#term();
    if (isNegated) this.#emit(NOT);
  }

  #term(): void {
    const start = this.at;
    const word = this.#match(WORD)?.[0] ?? '';
    const membership = named(MEMBERSHIPS, word);
    const existence = named(EXISTENCES, word);
    if (membership !== undefined) {
      this.#skipSpace();
      this.#sids();
      this.#emit(membership);
    } else if (existence !== undefined && /\s/.test(this.#text.charAt(this.at))) {
      this.#skipSpace();
      this.#attribute();
      this.#emit(existence);
    } else {
      this.at = start;
      this.#comparison();
    }
  }

  /** An attribute alone is one, too: it holds when it is neither zero nor empty. */
  #comparison(): void {
    this.#attribute();
    this.#skipSpace();
    const operator = this.#match(COMPARISON)?.[0];
    if (operator === undefined) return;
    this.#skipSpace();
    if (this.#text[this.at] === '@') this.#attribute();
    else if (this.#text[this.at] === '{' && !Object.hasOwn(ORDERS, operator))
      this.tokens.push(this.#composite(() => this.#literal()));
    else this.tokens.push(this.#literal());
    this.#emit(named(COMPARISONS, operator) ?? 0);
  }

  #attribute(): void {
    const prefixed = this.#match(NAME);
    const kind = named(ATTRIBUTES, prefixed?.[1] ?? '') ?? LOCAL_ATTRIBUTE;
    const name = prefixed?.[2] ?? this.#match(LOCAL_NAME)?.[0];
    if (name === undefined) throw this.#unexpected('an attribute');
    const plain = name.replace(/%([0-9a-f]{4})/gi, (_, digits) =>
      String.fromCharCode(Number.parseInt(digits, 16)),
    );
    this.tokens.push(sized(kind, Buffer.from(plain, 'utf16le')));
  }

  #sids(): void {
    if (this.#text[this.at] === '(') this.#within(() => this.#sids());
    else if (this.#text[this.at] === '{') this.tokens.push(this.#composite(() => this.#sid()));
    else this.tokens.push(this.#sid());
  }

  #composite(member: () => Buffer): Buffer {
    const members: Buffer[] = [];
    do {
      this.at++;
      this.#skipSpace();
      members.push(member());
      this.#skipSpace();
    } while (this.#text[this.at] === ',');
    this.#expect('}');
    return sized(COMPOSITE, Buffer.concat(members));
  }

  #sid(): Buffer {
    const start = this.at;
    const match = this.#match(SID_LITERAL);
    if (match === undefined) throw this.#unexpected('SID(...)');
    return sized(SID, encodeSid(match[1] ?? '', start + match[0].indexOf('(') + 1));
  }

  #literal(): Buffer {
    const text = this.#match(TEXT);
    if (text !== undefined) return sized(STRING, Buffer.from(text[1] ?? '', 'utf16le'));
    const digits = this.#match(HEX)?.[1]?.replaceAll('#', '0');
    if (digits !== undefined)
      return sized(OCTETS, Buffer.from(digits.length % 2 === 0 ? digits : `0${digits}`, 'hex'));
    const start = this.at;
    const number = this.#match(NUMBER);
    if (number !== undefined) return encodeInteger(number[1] ?? '', number[2] ?? '', start);
    if (/^sid\(/i.test(this.#text.slice(start, start + 4))) return this.#sid();
    throw this.#unexpected('a value or an attribute with @');
  }

  #emit(code: number): void {
    this.tokens.push(Buffer.of(code));
  }

  #skipSpace(): void {
    this.#match(SPACE);
  }

  #expect(character: string): void {
    if (this.#text[this.at] !== character) throw this.#unexpected(character);
    this.at++;
  }

  #match(expression: RegExp): RegExpExecArray | undefined {
    expression.lastIndex = this.at;
    const match = expression.exec(this.#text);
    if (match === null) return undefined;
    this.at += match[0].length;
    return match;
  }

  #unexpected(expected: string): SddlError {
    const found = this.#text.slice(this.at, this.at + 20);
    return new SddlError(`the condition lacks ${expected} before ${shown(found)}`, this.at);
  }
}

/** A token with a length in front of its data. */
function sized(code: number, data: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(code, 0);
  head.writeUInt32LE(data.length, 1);
  return Buffer.concat([head, data]);
}

/** Always in 64 bits, with the sign and base that it was written with. Hexadecimal ones may use all bits. */
function encodeInteger(sign: string, digits: string, position: number): Buffer {
  const isHexadecimal = /^0x/i.test(digits);
  const isOctal = /^0[0-7]+$/.test(digits);
  const magnitude = BigInt(isOctal ? `0o${digits}` : digits);
  if (magnitude >= (isHexadecimal && sign === '' ? MAX_U64 : MAX_I64 + (sign === '-' ? 1n : 0n)))
    throw new SddlError(`${shown(sign + digits)} doesn't fit 64 bits`, position);
  const bytes = Buffer.alloc(11);
  bytes.writeUInt8(INT64, 0);
  bytes.writeBigUInt64LE(BigInt.asUintN(64, sign === '-' ? -magnitude : magnitude), 1);
  bytes.writeUInt8(SIGNS[sign] ?? 0, 9);
  bytes.writeUInt8(isHexadecimal ? HEXADECIMAL : isOctal ? OCTAL : DECIMAL, 10);
  return bytes;
}
