/**
 * What the abbreviations of SDDL stand for. Sources: MS-DTYP 2.5.1.1 (grammar), 2.4.2.4 (well-known SIDs); "SID Strings"
 * and "ACE Strings" (Microsoft Learn), sddl.h.
 */

/** SIDs that are the same on every machine. */
export const SID_ALIASES: Readonly<Record<string, string>> = {
  AA: 'S-1-5-32-579',
  AC: 'S-1-15-2-1',
  AN: 'S-1-5-7',
  AO: 'S-1-5-32-548',
  AS: 'S-1-18-1',
  AU: 'S-1-5-11',
  BA: 'S-1-5-32-544',
  BG: 'S-1-5-32-546',
  BO: 'S-1-5-32-551',
  BU: 'S-1-5-32-545',
  CD: 'S-1-5-32-574',
  CG: 'S-1-3-1',
  CO: 'S-1-3-0',
  CY: 'S-1-5-32-569',
  ED: 'S-1-5-9',
  ER: 'S-1-5-32-573',
  ES: 'S-1-5-32-576',
  HA: 'S-1-5-32-578',
  HI: 'S-1-16-12288',
  IS: 'S-1-5-32-568',
  IU: 'S-1-5-4',
  LS: 'S-1-5-19',
  LU: 'S-1-5-32-559',
  LW: 'S-1-16-4096',
  ME: 'S-1-16-8192',
  MP: 'S-1-16-8448',
  MS: 'S-1-5-32-577',
  MU: 'S-1-5-32-558',
  NO: 'S-1-5-32-556',
  NS: 'S-1-5-20',
  NU: 'S-1-5-2',
  OW: 'S-1-3-4',
  PO: 'S-1-5-32-550',
  PS: 'S-1-5-10',
  PU: 'S-1-5-32-547',
  RA: 'S-1-5-32-575',
  RC: 'S-1-5-12',
  RD: 'S-1-5-32-555',
  RE: 'S-1-5-32-552',
  RM: 'S-1-5-32-580',
  RU: 'S-1-5-32-554',
  SI: 'S-1-16-16384',
  SO: 'S-1-5-32-549',
  SS: 'S-1-18-2',
  SU: 'S-1-5-6',
  SY: 'S-1-5-18',
  UD: 'S-1-5-84-0-0-0-0-0',
  WD: 'S-1-1-0',
  WR: 'S-1-5-33',
};

/** SIDs below a domain or below the machine's own SID: what they stand for nobody else knows. */
export const DOMAIN_ALIASES: ReadonlySet<string> = new Set(
  'AP CA CN DA DC DD DG DU EA EK KA LA LG PA RO RS SA'.split(' '),
);

/** Access rights: generic, standard, of directory objects, files, registry keys, mandatory labels. */
export const RIGHTS: Readonly<Record<string, number>> = {
  GA: 0x1000_0000,
  GR: 0x8000_0000,
  GW: 0x4000_0000,
  GX: 0x2000_0000,
  RC: 0x0002_0000,
  SD: 0x0001_0000,
  WD: 0x0004_0000,
  WO: 0x0008_0000,
  CC: 0x1,
  DC: 0x2,
  LC: 0x4,
  SW: 0x8,
  RP: 0x10,
  WP: 0x20,
  DT: 0x40,
  LO: 0x80,
  CR: 0x100,
  FA: 0x001f_01ff,
  FR: 0x0012_0089,
  FW: 0x0012_0116,
  FX: 0x0012_00a0,
  KA: 0x000f_003f,
  KR: 0x0002_0019,
  KW: 0x0002_0006,
  KX: 0x0002_0019,
  NW: 0x1,
  NR: 0x2,
  NX: 0x4,
};

export const ACE_FLAGS: Readonly<Record<string, number>> = {
  OI: 0x01,
  CI: 0x02,
  NP: 0x04,
  IO: 0x08,
  ID: 0x10,
  CR: 0x20,
  SA: 0x40,
  TP: 0x40,
  FA: 0x80,
};

/** Where an ACE may stand: who is allowed what, or what is audited and labelled. */
export type AclKind = 'D' | 'S';

export interface AceType {
  type: number;
  acl: AclKind;
  /** May name the object's type and that of its heirs. */
  isObject?: true;
  /** Counts only where a condition holds. */
  isConditional?: true;
}

export const ACE_TYPES: Readonly<Record<string, AceType>> = {
  A: { type: 0x00, acl: 'D' },
  D: { type: 0x01, acl: 'D' },
  OA: { type: 0x05, acl: 'D', isObject: true },
  OD: { type: 0x06, acl: 'D', isObject: true },
  XA: { type: 0x09, acl: 'D', isConditional: true },
  XD: { type: 0x0a, acl: 'D', isConditional: true },
  ZA: { type: 0x0b, acl: 'D', isObject: true, isConditional: true },
  AU: { type: 0x02, acl: 'S' },
  AL: { type: 0x03, acl: 'S' },
  OU: { type: 0x07, acl: 'S', isObject: true },
  OL: { type: 0x08, acl: 'S', isObject: true },
  XU: { type: 0x0d, acl: 'S', isConditional: true },
  ML: { type: 0x11, acl: 'S' },
  SP: { type: 0x13, acl: 'S' },
  TL: { type: 0x14, acl: 'S' },
};

/** ACEs that carry a claim or a filter. */
export const CLAIM_ACE_TYPES: ReadonlySet<string> = new Set(['RA', 'FL']);

export const SE_CONTROL = {
  daclPresent: 0x0004,
  saclPresent: 0x0010,
  daclAutoInheritRequired: 0x0100,
  saclAutoInheritRequired: 0x0200,
  daclAutoInherited: 0x0400,
  saclAutoInherited: 0x0800,
  daclProtected: 0x1000,
  saclProtected: 0x2000,
  selfRelative: 0x8000,
} as const;

/** What a name stands for, in upper or lower case. */
export function named<T>(names: Readonly<Record<string, T>>, name: string): T | undefined {
  const key = name.toUpperCase();
  return Object.hasOwn(names, key) ? names[key] : undefined;
}
