/**
 * Security descriptors as text (SDDL) into self-relative binary form. Sources: MS-DTYP 2.5.1 (SDDL), 2.4.4 (ACE), 2.4.5
 * (ACL), 2.4.6 (SECURITY_DESCRIPTOR). Parts are laid out as Windows does: SACL, DACL, owner, group.
 */

import { encodeCondition } from './sddl-conditions.ts';
import {
  ACE_FLAGS,
  ACE_TYPES,
  type AceType,
  type AclKind,
  CLAIM_ACE_TYPES,
  named,
  RIGHTS,
  SE_CONTROL,
} from './sddl-names.ts';
import { encodeSid, SddlError, shown } from './sddl-sid.ts';

const HEADER = 20;
const ACL_HEADER = 8;
const ACE_HEADER = 4;
const MAX_ACL = 0xffff;
const ACL_REVISION = 2;
/** Of ACLs that have object ACEs. */
const ACL_REVISION_OBJECT = 4;
const MAX_U32 = 0xffff_ffff;

const GUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i;
const NUMBER = /^(?:0x[0-9a-f]{1,8}|\d{1,11})$/i;

/** What is wrong with a text, and at which character (from 0). */
export interface SddlFault {
  fault: string;
  position: number;
}

/** Encodes a descriptor; a SddlFault says why it can't be. */
export function encodeSddl(text: string): Buffer | SddlFault {
  try {
    return new SddlParser(text).parse();
  } catch (error) {
    if (error instanceof SddlError) return { fault: error.message, position: error.position };
    throw error;
  }
}

interface Acl {
  /** Undefined for NO_ACCESS_CONTROL: present, and NULL. */
  bytes: Buffer | undefined;
  control: number;
}

class SddlParser {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  parse(): Buffer {
    const sids: { O?: Buffer; G?: Buffer } = {};
    const acls: { D?: Acl; S?: Acl } = {};
    for (this.#skipSpace(); this.#at < this.#text.length; this.#skipSpace()) {
      const start = this.#at;
      const part = this.#text.slice(start, start + 2).toUpperCase();
      this.#at += 2;
      if (part === 'O:' || part === 'G:') {
        const key = part === 'O:' ? 'O' : 'G';
        if (sids[key] !== undefined) throw new SddlError(`${part} stands twice`, start);
        sids[key] = this.#sidUntil(/\s|[OGDS]:|$/gi);
      } else if (part === 'D:' || part === 'S:') {
        const key = part === 'D:' ? 'D' : 'S';
        if (acls[key] !== undefined) throw new SddlError(`${part} stands twice`, start);
        acls[key] = this.#acl(key);
      } else
        throw new SddlError(
          `expected O:, G:, D: or S:, found ${shown(this.#text.slice(start, start + 2))}`,
          start,
        );
    }
    return encodeDescriptor(sids.O, sids.G, acls.D, acls.S);
  }

  #skipSpace(): void {
    while (/\s/.test(this.#text.charAt(this.#at))) this.#at++;
  }

  /** Text up to where `end` (a global expression that matches at the end, too) matches next. */
  #until(end: RegExp): { token: string; start: number } {
    const start = this.#at;
    end.lastIndex = start;
    this.#at = end.exec(this.#text)?.index ?? this.#text.length;
    return { token: this.#text.slice(start, this.#at), start };
  }

  #sidUntil(end: RegExp): Buffer {
    this.#skipSpace();
    const { token, start } = this.#until(end);
    return encodeSid(token, start);
  }

  #acl(kind: AclKind): Acl {
    let control = this.#aclFlags(kind);
    const isDacl = kind === 'D';
    control |= isDacl ? SE_CONTROL.daclPresent : SE_CONTROL.saclPresent;
    if (this.#text.startsWith('NO_ACCESS_CONTROL', this.#at)) {
      if (!isDacl) throw new SddlError('NO_ACCESS_CONTROL is for D: only', this.#at);
      this.#at += 'NO_ACCESS_CONTROL'.length;
      return { bytes: undefined, control: control | this.#aclFlags(kind) };
    }
    const aces: Buffer[] = [];
    let revision = ACL_REVISION;
    const start = this.#at;
    for (this.#skipSpace(); this.#text[this.#at] === '('; this.#skipSpace()) {
      const { bytes, isObject } = this.#ace(kind);
      if (isObject) revision = ACL_REVISION_OBJECT;
      aces.push(bytes);
    }
    const size = aces.reduce((sum, ace) => sum + ace.length, ACL_HEADER);
    if (size > MAX_ACL) throw new SddlError(`the list takes ${size} bytes; at most ${MAX_ACL} fit`, start);
    const header = Buffer.alloc(ACL_HEADER);
    header.writeUInt8(revision, 0);
    header.writeUInt16LE(size, 2);
    header.writeUInt16LE(aces.length, 4);
    return { bytes: Buffer.concat([header, ...aces]), control };
  }

  #aclFlags(kind: AclKind): number {
    const flags: [string, number, number][] = [
      ['P', SE_CONTROL.daclProtected, SE_CONTROL.saclProtected],
      ['AR', SE_CONTROL.daclAutoInheritRequired, SE_CONTROL.saclAutoInheritRequired],
      ['AI', SE_CONTROL.daclAutoInherited, SE_CONTROL.saclAutoInherited],
    ];
    let control = 0;
    for (;;) {
      this.#skipSpace();
      const rest = this.#text.slice(this.#at, this.#at + 2).toUpperCase();
      const flag = flags.find(([name]) => rest.startsWith(name));
      if (flag === undefined) return control;
      control |= kind === 'D' ? flag[1] : flag[2];
      this.#at += flag[0].length;
    }
  }

  #ace(kind: AclKind): { bytes: Buffer; isObject: boolean } {
    const open = this.#at;
    const [type, flags, rights, object, heirs, sid] = this.#fields(open);
    const known = aceTypeOf(type, kind);
    const guids = [guidOf(object), guidOf(heirs)];
    const isObject = known.isObject === true;
    if (!isObject && guids.some((guid) => guid !== undefined)) {
      throw new SddlError(`an entry of type ${type.token} has no object types`, object.start);
    }
    const mask = Buffer.alloc(isObject ? 8 : 4);
    mask.writeUInt32LE(rightsOf(rights), 0);
    if (isObject) mask.writeUInt32LE((guids[0] ? 1 : 0) | (guids[1] ? 2 : 0), 4);
    const body = [
      mask,
      ...guids.filter((guid) => guid !== undefined),
      encodeSid(sid.token, sid.start),
      this.#condition(known, type),
    ];
    if (this.#text[this.#at] !== ')')
      throw new SddlError(
        `expected the end of the entry, found ${shown(this.#text.slice(this.#at))}`,
        this.#at,
      );
    this.#at++;
    const size = body.reduce((sum, part) => sum + part.length, ACE_HEADER);
    if (size > MAX_ACL) throw new SddlError(`the entry takes ${size} bytes; at most ${MAX_ACL} fit`, open);
    const header = Buffer.alloc(ACE_HEADER);
    header.writeUInt8(known.type, 0);
    header.writeUInt8(bitsOf(flags, ACE_FLAGS, 'entry flag'), 1);
    header.writeUInt16LE(size, 2);
    return { bytes: Buffer.concat([header, ...body]), isObject };
  }

  /** The six fields that every entry has; leaves off at what ended the last. */
  #fields(open: number): [Field, Field, Field, Field, Field, Field] {
    const fields: Field[] = [];
    do {
      this.#at++;
      const { token, start } = this.#until(/[;)]/g);
      if (this.#at === this.#text.length) throw new SddlError('the entry has no closing parenthesis', open);
      const lead = token.length - token.trimStart().length;
      fields.push({ token: token.trim(), start: start + lead });
    } while (fields.length < 6 && this.#text[this.#at] === ';');
    const [type, flags, rights, object, heirs, sid] = fields;
    if (!type || !flags || !rights || !object || !heirs || !sid)
      throw new SddlError(`an entry has 6 fields, this one ${fields.length}`, open);
    return [type, flags, rights, object, heirs, sid];
  }

  /** What follows the six fields. Entries are a multiple of four bytes long, as all that stands before this is. */
  #condition({ isConditional }: AceType, { token, start }: Field): Buffer {
    if (isConditional !== true) return Buffer.alloc(0);
    if (this.#text[this.#at] !== ';')
      throw new SddlError(`an entry of type ${token} has a condition as its seventh field`, start);
    this.#at++;
    this.#skipSpace();
    const { bytes, end } = encodeCondition(this.#text, this.#at);
    this.#at = end;
    this.#skipSpace();
    return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
  }
}

interface Field {
  token: string;
  start: number;
}

function aceTypeOf({ token, start }: Field, kind: AclKind): AceType {
  const known = named(ACE_TYPES, token);
  if (known?.acl === kind) return known;
  if (known !== undefined) throw new SddlError(`an entry of type ${token} belongs into ${known.acl}:`, start);
  if (CLAIM_ACE_TYPES.has(token.toUpperCase()))
    throw new SddlError(`entries of type ${token} (claims, filters) are not supported as text`, start);
  throw new SddlError(`unknown entry type ${shown(token)}`, start);
}

/** Two-letter names, one after the other. */
function bitsOf({ token, start }: Field, names: Readonly<Record<string, number>>, what: string): number {
  let bits = 0;
  for (let at = 0; at < token.length; at += 2) {
    const value = named(names, token.slice(at, at + 2));
    if (value === undefined)
      throw new SddlError(`unknown ${what} ${shown(token.slice(at, at + 2))}`, start + at);
    bits |= value;
  }
  return bits >>> 0;
}

/** Names, or a number: hexadecimal, octal with a leading 0, decimal. */
function rightsOf(field: Field): number {
  const { token, start } = field;
  if (!/^\d/.test(token)) return bitsOf(field, RIGHTS, 'right');
  const isOctal = /^0[0-7]+$/.test(token);
  const value = NUMBER.test(token)
    ? Number.parseInt(token, isOctal ? 8 : token.includes('x') || token.includes('X') ? 16 : 10)
    : Number.NaN;
  if (!(value <= MAX_U32)) throw new SddlError(`rights ${shown(token)} are no 32-bit number`, start);
  return value;
}

function guidOf({ token, start }: Field): Buffer | undefined {
  if (token === '') return undefined;
  if (!GUID.test(token)) throw new SddlError(`${shown(token)} is no GUID`, start);
  const bytes = Buffer.from(token.replaceAll('-', ''), 'hex');
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return bytes;
}

function encodeDescriptor(
  owner: Buffer | undefined,
  group: Buffer | undefined,
  dacl: Acl | undefined,
  sacl: Acl | undefined,
): Buffer {
  const parts = [sacl?.bytes, dacl?.bytes, owner, group];
  const header = Buffer.alloc(HEADER);
  header.writeUInt8(1, 0);
  header.writeUInt16LE(SE_CONTROL.selfRelative | (dacl?.control ?? 0) | (sacl?.control ?? 0), 2);
  let end = HEADER;
  for (const [index, field] of [12, 16, 4, 8].entries()) {
    const part = parts[index];
    if (part === undefined) continue;
    header.writeUInt32LE(end, field);
    end += part.length;
  }
  return Buffer.concat([header, ...parts.filter((part) => part !== undefined)]);
}
