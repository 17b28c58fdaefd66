/**
 * Whether a commit or tag is signed with one of the keys that are trusted, by git's own verification with a keyring of
 * nothing but these. Both lists are always given, if empty: an ssh signature isn't believed because only OpenPGP keys were named.
 */

import { createHash, randomUUID } from 'node:crypto';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { CimletError, classify } from '../errors.ts';
import type { GitVerification } from '../manifests/types.gen.ts';
import type { Git } from './git-command.ts';
import { describeGitFailure } from './git-errors.ts';
import type { ResolvedRef } from './git-refs.ts';
import type { GitRepository } from './git-repository.ts';

export interface TrustedKeys {
  mode: NonNullable<GitVerification['mode']>;
  /** OpenPGP keys, armoured or not, as they are in the files. */
  openPgp: Buffer[];
  /** Lines such as `ssh-ed25519 AAAA…`. */
  ssh: string[];
  /** Of all that decides who is trusted. */
  digest: string;
}

const SSH_KEY = /^((?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[\w@.-]+ [A-Za-z0-9+/=]+)(?: .*)?$/;

/** Reads the keys. Throws `not-found` or `access-denied` for a file, `invalid-manifest` for what is no public key. */
export async function readTrustedKeys(
  { mode = 'HEAD', keys }: GitVerification,
  baseDirectory: string,
): Promise<TrustedKeys> {
  const trusted: TrustedKeys = { mode, openPgp: [], ssh: [], digest: '' };
  const digest = createHash('sha256').update(mode);
  for (const file of keys) {
    const bytes = await readKeyFile(resolve(baseDirectory, file));
    digest.update(createHash('sha256').update(bytes).digest());
    const text = bytes.toString('latin1');
    if (/PRIVATE KEY/.test(text)) throw noKey(file, 'holds a private key; name the public one');
    if (text.includes('-----BEGIN PGP PUBLIC KEY BLOCK-----') || (bytes[0] ?? 0) >= 0x80) {
      trusted.openPgp.push(bytes);
      continue;
    }
    for (const [index, line] of text.split(/\r?\n/).entries()) {
      if (line.trim() === '' || line.startsWith('#')) continue;
      const key = SSH_KEY.exec(line)?.[1];
      if (key === undefined)
        throw noKey(`${file}:${index + 1}`, 'is no public key (OpenPGP, or ssh as in id_ed25519.pub)');
      trusted.ssh.push(key);
    }
  }
  if (trusted.openPgp.length + trusted.ssh.length === 0) throw noKey(keys.join(', '), 'holds no key');
  return { ...trusted, digest: digest.digest('hex') };
}

async function readKeyFile(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (error) {
    throw classify(error, `read trusted key ${path}`);
  }
}

function noKey(place: string, what: string): CimletError {
  return new CimletError('invalid-manifest', `verification key ${place} ${what}`);
}

export interface Verification {
  git: Git;
  repository: GitRepository;
  keys: TrustedKeys;
  cacheDirectory: string;
  signal: AbortSignal;
}

/** Throws `access-denied` when the commit, the tag, or both, as the mode has it, aren't signed with a trusted key. */
export async function verifySignatures(ref: ResolvedRef, verification: Verification): Promise<void> {
  const { keys, cacheDirectory } = verification;
  // Short: gpg puts sockets there, whose paths have a limit.
  const folder = join(cacheDirectory, `tmp-${randomUUID().slice(0, 8)}`);
  try {
    await makeKeyring(folder, verification);
    if (keys.mode !== 'Tag') {
      await verifyObject(folder, verification, 'verify-commit', ref.commit, `commit ${ref.commit}`);
    }
    if (keys.mode !== 'HEAD') await verifyTag(folder, verification, ref);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function makeKeyring(folder: string, { git, keys, signal }: Verification): Promise<void> {
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await writeFile(
      join(folder, 'gpg.conf'),
      'batch\nno-tty\nno-autostart\nno-auto-key-retrieve\nno-auto-key-locate\n',
    );
    const signers = keys.ssh.map((key) => `trusted namespaces="git" ${key}\n`);
    await writeFile(join(folder, 'signers'), signers.join(''));
  } catch (error) {
    throw classify(error, `prepare verification in ${folder}`);
  }
  for (const key of keys.openPgp) {
    await git.run({
      program: 'gpg',
      args: ['--homedir', folder, '--quiet', '--import'],
      operation: 'import trusted OpenPGP keys',
      signal,
      input: key,
    });
  }
}

async function verifyObject(
  folder: string,
  { repository, signal }: Verification,
  command: 'verify-commit' | 'verify-tag',
  object: string,
  what: string,
): Promise<void> {
  const args = ['-c', `gpg.ssh.allowedSignersFile=${join(folder, 'signers')}`, command, object];
  const operation = `verify the signature of ${what}`;
  const { code, stderr } = await repository.attempt(operation, args, signal, { GNUPGHOME: folder });
  if (code === 0) return;
  throw new CimletError('access-denied', `${operation}: ${whyRefused(stderr)}`, {
    hint: 'sign with one of the keys in verification.keys; what was accepted before stays in force',
  });
}

/** What gpg, ssh-keygen and git say. The first that is found counts. */
const REFUSALS: readonly [phrase: RegExp, meaning: string][] = [
  [/^\s*$|no signature found/, 'it has none'],
  [/BAD signature|incorrect signature/, 'something else was signed with it'],
  [/revoked by its owner/, 'the key was revoked'],
  [/key has expired/, 'the key has expired'],
  [/No public key|No principal matched/, 'the key is none of those that are trusted'],
];

function whyRefused(stderr: string): string {
  const known = REFUSALS.find(([phrase]) => phrase.test(stderr))?.[1];
  const key = /(?:using \w+ key |with \w+ key )([\w:+/]+)/.exec(stderr)?.[1];
  if (known !== undefined) return key === undefined ? known : `${known} (${key})`;
  return describeGitFailure('git', stderr).message;
}

/** A signed tag may be served under another name: `v1` as `v2`. So the name that was signed counts. */
async function verifyTag(
  folder: string,
  verification: Verification,
  { tag, commit }: ResolvedRef,
): Promise<void> {
  if (tag === undefined) {
    throw new CimletError('invalid-manifest', 'verification of tags needs ref.tag or ref.semver');
  }
  if (tag.object === commit) {
    throw new CimletError(
      'access-denied',
      `verify the signature of tag ${tag.name}: it is no annotated tag`,
      {
        hint: 'sign tags with `git tag --sign`',
      },
    );
  }
  const { repository, signal } = verification;
  const text = await repository.run(`read tag ${tag.name}`, ['cat-file', 'tag', tag.object], signal);
  const headers = text.toString().split('\n\n', 1)[0]?.split('\n') ?? [];
  if (!headers.includes(`tag ${tag.name}`) || !headers.includes(`object ${commit}`)) {
    throw new CimletError(
      'access-denied',
      `verify the signature of tag ${tag.name}: it was signed as another tag`,
      {
        hint: 'the server shows a tag under a name it was not given by whoever signed it',
      },
    );
  }
  await verifyObject(folder, verification, 'verify-tag', tag.object, `tag ${tag.name}`);
}
