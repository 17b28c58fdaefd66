/** Security identifiers as text, and what is wrong with a text. Sources: MS-DTYP 2.4.2.1 (string form), 2.4.2.2 (packet form). */

import { DOMAIN_ALIASES, named, SID_ALIASES } from './sddl-names.ts';

const MAX_SUB_AUTHORITIES = 15;
const MAX_AUTHORITY = 0xffff_ffff_ffff;
const MAX_U32 = 0xffff_ffff;

const SID = /^S-1-(0x[0-9a-f]{1,12}|\d{1,15})((?:-(?:0x[0-9a-f]{1,8}|\d{1,10}))*)$/i;

/** Thrown where a text stops making sense, for `encodeSddl` to catch. */
export class SddlError extends Error {
  readonly position: number;

  constructor(message: string, position: number) {
    super(message);
    this.position = position;
  }
}

/** The binary form of a SID or of an alias for one; `position` is where it stands. Throws SddlError. */
export function encodeSid(token: string, position: number): Buffer {
  if (DOMAIN_ALIASES.has(token.toUpperCase())) {
    throw new SddlError(`${token} stands for an account of a domain, which is not known here`, position);
  }
  const match = SID.exec(named(SID_ALIASES, token) ?? token);
  const authority = Number(match?.[1]);
  const subs = (match?.[2] ?? '').split('-').slice(1).map(Number);
  const fits =
    authority <= MAX_AUTHORITY && subs.length <= MAX_SUB_AUTHORITIES && subs.every((sub) => sub <= MAX_U32);
  if (match === null || !fits) throw new SddlError(`${shown(token)} is no SID`, position);
  const bytes = Buffer.alloc(8 + 4 * subs.length);
  bytes.writeUInt8(1, 0);
  bytes.writeUInt8(subs.length, 1);
  bytes.writeUIntBE(authority, 2, 6);
  for (const [index, sub] of subs.entries()) bytes.writeUInt32LE(sub, 8 + 4 * index);
  return bytes;
}

export function shown(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text);
}
