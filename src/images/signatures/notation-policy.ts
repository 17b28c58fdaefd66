/** Whom a host trusts, as notation's configuration says. Source: notaryproject specifications/trust-store-trust-policy.md. */

import { X509Certificate } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CimletError, classify } from '../../errors.ts';

export type Validation = 'enforce' | 'log' | 'skip';

export interface TrustPolicy {
  name: string;
  scopes: string[];
  authenticity: Validation;
  authenticTimestamp: Validation;
  expiry: Validation;
  revocation: Validation;
  /** `ca:name` or `signingAuthority:name`. */
  stores: string[];
  /** `*`, or subjects whose attributes a certificate must all have. */
  identities: ('*' | Map<string, string>)[];
}

const LEVELS: Record<
  string,
  Pick<TrustPolicy, 'authenticity' | 'authenticTimestamp' | 'expiry' | 'revocation'>
> = {
  strict: {
    authenticity: 'enforce',
    authenticTimestamp: 'enforce',
    expiry: 'enforce',
    revocation: 'enforce',
  },
  permissive: { authenticity: 'enforce', authenticTimestamp: 'log', expiry: 'log', revocation: 'log' },
  audit: { authenticity: 'log', authenticTimestamp: 'log', expiry: 'log', revocation: 'log' },
  skip: { authenticity: 'skip', authenticTimestamp: 'skip', expiry: 'skip', revocation: 'skip' },
};
const SUBJECT = /^x509\.subject:\s*(.+)$/;

interface PolicyDocument {
  trustPolicies?: {
    name?: string;
    registryScopes?: string[];
    signatureVerification?: { level?: string; override?: Record<string, unknown> };
    trustStores?: string[];
    trustedIdentities?: string[];
  }[];
}

/** The policy for a repository: the one that names it, else that for `*`. Throws `invalid-manifest`, `not-found`. */
export async function readTrustPolicy(file: string, repository: string): Promise<TrustPolicy> {
  const wrong = (what: string, cause?: unknown) =>
    new CimletError('invalid-manifest', `trust policy ${file}: ${what}`, {
      hint: "the format is notation's trustpolicy.json",
      cause,
    });
  let policies: PolicyDocument['trustPolicies'];
  try {
    policies = (JSON.parse(await readFile(file, 'utf8')) as PolicyDocument | null)?.trustPolicies;
  } catch (error) {
    throw error instanceof SyntaxError
      ? wrong(error.message, error)
      : classify(error, `read trust policy ${file}`);
  }
  if (!Array.isArray(policies)) throw wrong('it has no trustPolicies');
  const chosen =
    policies.find(({ registryScopes = [] }) => registryScopes.includes(repository)) ??
    policies.find(({ registryScopes = [] }) => registryScopes.includes('*'));
  if (chosen === undefined) {
    throw new CimletError('not-found', `trust policy ${file}: none of its policies is for ${repository}`, {
      hint: 'add the repository to registryScopes of one, or `*`',
    });
  }
  const { name = '', signatureVerification: { level = '', override = {} } = {}, trustStores = [] } = chosen;
  const validations = Object.hasOwn(LEVELS, level) ? LEVELS[level] : undefined;
  if (validations === undefined) throw wrong(`policy ${name} has the unknown level ${JSON.stringify(level)}`);
  for (const [check, action] of Object.entries(override)) {
    const actions = check === 'revocation' ? ['enforce', 'log', 'skip'] : ['enforce', 'log'];
    const isKnown = level !== 'skip' && Object.hasOwn(validations, check);
    if (isKnown && actions.some((each) => each === action)) continue;
    throw wrong(`policy ${name} overrides ${JSON.stringify(check)} with ${JSON.stringify(action)}`);
  }
  const identities = (chosen.trustedIdentities ?? []).map((text) => {
    const subject = text === '*' ? text : parseSubject(SUBJECT.exec(text)?.[1] ?? '');
    if (subject === '*' || subject.size > 0) return subject;
    throw wrong(`policy ${name} has the identity ${JSON.stringify(text)}, which is no x509.subject`);
  });
  return {
    name,
    scopes: chosen.registryScopes ?? [],
    ...validations,
    ...override,
    stores: trustStores,
    identities,
  };
}

/**
 * Every certificate of the named stores of authorities: those for timestamps and signing authorities vouch for nothing that is read here. Throws
 * `not-found` for a store that isn't there.
 */
export async function readTrustStores(
  directory: string,
  stores: readonly string[],
): Promise<X509Certificate[]> {
  const certificates: X509Certificate[] = [];
  for (const store of stores) {
    const [, kind, name] = /^(ca|signingAuthority|tsa):([\w.-]+)$/.exec(store) ?? [];
    if (kind === undefined || name === undefined || name === '..' || name === '.')
      throw new CimletError('invalid-manifest', `${JSON.stringify(store)} is no trust store such as ca:name`);
    if (kind !== 'ca') continue;
    const folder = join(directory, 'x509', kind, name);
    try {
      for (const file of (await readdir(folder)).sort())
        certificates.push(...parseCertificates(await readFile(join(folder, file))));
    } catch (error) {
      throw classify(error, `read trust store ${folder}`, 'it holds certificates, as x509/ca/<name>/*.pem');
    }
  }
  return certificates;
}

/** `C=US, O=acme` and, as Node writes it, one attribute a line. A comma with a backslash before it is part of a value. */
export function parseSubject(text: string): Map<string, string> {
  const parts = text.split(/(?<!\\),|\n/).map((part) => part.trim().replaceAll('\\,', ','));
  return new Map(
    parts.flatMap((part): [string, string][] => {
      const equals = part.indexOf('=');
      return equals < 1 ? [] : [[part.slice(0, equals).toUpperCase(), part.slice(equals + 1)]];
    }),
  );
}

function parseCertificates(bytes: Buffer): X509Certificate[] {
  const blocks = bytes
    .toString('latin1')
    .match(/-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g);
  return (blocks ?? [bytes]).map((block) => new X509Certificate(block));
}
