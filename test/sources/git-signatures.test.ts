import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { hasTool, requireOrSkip } from '../support/requirements.ts';
import { type GitWorld, makeGitWorld, openGitSource } from './git-fixture.ts';
import { NEVER, textsOf } from './support.ts';

interface Signer {
  /** Arguments of git before its command. */
  args: string[];
  env: Record<string, string>;
  /** File with the public key, in the world. */
  publicKey: string;
}

function sshSigner({ world }: GitWorld, name: string): Signer {
  execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', name, '-f', join(world, name)]);
  const args = ['-c', 'gpg.format=ssh', '-c', `user.signingKey=${join(world, name)}`];
  return { args, env: {}, publicKey: `${name}.pub` };
}

interface GpgSigner extends Signer {
  home: string;
  gpg: (...args: string[]) => Buffer;
  /** Writes the public key as it is now. */
  publish: () => void;
}

/** With `year`, made and used in that year, and valid for a month. */
function gpgSigner({ world }: GitWorld, name: string, year?: number): GpgSigner {
  // Sockets have short paths.
  const home = mkdtempSync('/tmp/gpg-');
  const clock = year === undefined ? [] : ['--faked-system-time', `${year}0101T000000`];
  const options = [
    '--homedir',
    home,
    '--batch',
    '--quiet',
    '--pinentry-mode',
    'loopback',
    '--passphrase',
    '',
  ];
  const gpg = (...args: string[]): Buffer =>
    execFileSync('gpg', [...options, ...clock, ...args], { stdio: ['ignore', 'pipe', 'ignore'] });
  onTestFinished(() => {
    execFileSync('gpgconf', ['--homedir', home, '--kill', 'all']);
    rmSync(home, { recursive: true, force: true });
  });
  gpg('--quick-generate-key', `${name}@example.com`, 'ed25519', 'sign', year === undefined ? 'never' : '1m');
  const publish = (): void => writeFileSync(join(world, `${name}.asc`), gpg('--armor', '--export'));
  publish();
  const program = join(world, `gpg-${name}`);
  writeFileSync(program, `#!/bin/sh\nexec gpg ${clock.join(' ')} "$@"\n`, { mode: 0o755 });
  return {
    args: ['-c', `user.signingKey=${name}@example.com`, '-c', `gpg.program=${program}`],
    env: { GNUPGHOME: home },
    publicKey: `${name}.asc`,
    home,
    gpg,
    publish,
  };
}

/** Pushes a commit, signed or not. */
function pushAs(world: GitWorld, signer: Signer | undefined, text: string): string {
  writeFileSync(join(world.world, 'work', 'a.yaml'), text);
  world.git(['add', '--all']);
  const sign = signer === undefined ? [] : ['-S'];
  world.git([...(signer?.args ?? []), 'commit', '--quiet', '--allow-empty', '--message', text, ...sign], {
    env: signer?.env ?? {},
  });
  world.git(['push', '--quiet', '--force', 'origin', 'HEAD:refs/heads/main']);
  return world.git(['rev-parse', 'HEAD']);
}

function pushTag(world: GitWorld, signer: Signer | undefined, name: string): void {
  const kind = signer === undefined ? '--annotate' : '--sign';
  world.git([...(signer?.args ?? []), 'tag', '--force', kind, '--message', name, name], {
    env: signer?.env ?? {},
  });
  world.git(['push', '--quiet', '--force', 'origin', `refs/tags/${name}`]);
}

const KINDS: [string, string, (world: GitWorld, name: string) => Signer][] = [
  ['ssh', 'ssh-keygen', sshSigner],
  ['OpenPGP', 'gpg', gpgSigner],
];

describe.each(KINDS)('%s signatures', (_, tool, makeSigner) => {
  const itRuns = it.runIf(requireOrSkip(tool, hasTool(tool)));

  itRuns('lets through what a trusted key signed, and keeps to it while others push', async () => {
    const world = makeGitWorld();
    const [trusted, stranger] = [makeSigner(world, 'trusted'), makeSigner(world, 'stranger')];
    const config = { url: world.server, verification: { keys: [trusted.publicKey] } };
    const source = openGitSource(world.world, config);
    const signed = pushAs(world, trusted, 'signed');
    const revision = await source.sync(NEVER);
    expect(revision.name).toBe(`main@sha1:${signed}`);
    await source.accept(revision);

    const refused = {
      code: 'access-denied',
      message: expect.stringContaining('verify the signature of commit'),
    };
    pushAs(world, undefined, 'not signed');
    await expect(source.sync(NEVER)).rejects.toMatchObject({
      ...refused,
      message: expect.stringContaining('it has none'),
    });
    pushAs(world, stranger, 'signed by a stranger');
    await expect(source.sync(NEVER)).rejects.toMatchObject({
      ...refused,
      message: expect.stringMatching(/the key is none of those that are trusted \([\w:+/]{40,}\)$/),
    });
    expect(await source.accepted()).toEqual(revision);

    pushAs(world, trusted, 'signed again');
    expect(textsOf(await source.sync(NEVER))).toEqual({ 'a.yaml': 'signed again' });
  });

  itRuns('refuses a commit whose content was changed under its signature', async () => {
    const world = makeGitWorld();
    const trusted = makeSigner(world, 'trusted');
    const commit = pushAs(world, trusted, 'signed');
    const text = world.git(['cat-file', 'commit', commit]);
    const forged = world.git(['hash-object', '-t', 'commit', '-w', '--stdin'], {
      input: `${text.replace('author Ann', 'author Eve')}\n`,
    });
    world.git(['push', '--quiet', '--force', 'origin', `${forged}:refs/heads/main`]);
    const source = openGitSource(world.world, {
      url: world.server,
      verification: { keys: [trusted.publicKey] },
    });
    await expect(source.sync(NEVER)).rejects.toMatchObject({
      code: 'access-denied',
      message: expect.stringContaining('something else was signed with it'),
    });
  });

  itRuns('stops trusting a key that is no longer listed, without a new commit', async () => {
    const world = makeGitWorld();
    const [one, two] = [makeSigner(world, 'one'), makeSigner(world, 'two')];
    const listed = join(world.world, 'listed');
    copyFileSync(join(world.world, one.publicKey), listed);
    pushAs(world, one, 'signed');
    const source = openGitSource(world.world, { url: world.server, verification: { keys: ['listed'] } });
    await source.sync(NEVER);
    copyFileSync(join(world.world, two.publicKey), listed);
    await expect(source.sync(NEVER)).rejects.toMatchObject({ code: 'access-denied' });
  });

  itRuns(
    'verifies tags: signed, not signed, a stranger’s, not annotated, and under another name',
    async () => {
      const world = makeGitWorld();
      const [trusted, stranger] = [makeSigner(world, 'trusted'), makeSigner(world, 'stranger')];
      const verification = { mode: 'Tag' as const, keys: [trusted.publicKey] };
      const open = (tag: string) =>
        openGitSource(world.world, { url: world.server, ref: { tag }, verification }, tag);
      pushAs(world, undefined, 'commits are not signed here');

      pushTag(world, trusted, 'v1');
      expect((await open('v1').sync(NEVER)).name).toMatch(/^v1@sha1:/);
      for (const [tag, signer] of [
        ['v2', undefined],
        ['v3', stranger],
      ] as const) {
        pushTag(world, signer, tag);
        await expect(open(tag).sync(NEVER)).rejects.toMatchObject({ code: 'access-denied' });
      }
      world.git(['push', '--quiet', 'origin', 'HEAD:refs/tags/v4']);
      await expect(open('v4').sync(NEVER)).rejects.toMatchObject({
        message: expect.stringContaining('no annotated tag'),
      });
      world.git(['push', '--quiet', 'origin', 'refs/tags/v1:refs/tags/v5']);
      await expect(open('v5').sync(NEVER)).rejects.toMatchObject({
        message: expect.stringContaining('signed as another tag'),
      });
    },
  );

  itRuns('wants both signed with TagAndHEAD', async () => {
    const world = makeGitWorld();
    const trusted = makeSigner(world, 'trusted');
    const verification = { mode: 'TagAndHEAD' as const, keys: [trusted.publicKey] };
    const open = (tag: string) =>
      openGitSource(world.world, { url: world.server, ref: { tag }, verification }, tag);
    pushAs(world, undefined, 'not signed');
    pushTag(world, trusted, 'v1');
    await expect(open('v1').sync(NEVER)).rejects.toMatchObject({
      code: 'access-denied',
      message: expect.stringContaining('it has none'),
    });
    pushAs(world, trusted, 'signed');
    pushTag(world, trusted, 'v2');
    expect(textsOf(await open('v2').sync(NEVER))).toEqual({ 'a.yaml': 'signed' });
  });
});

it.runIf(requireOrSkip('gpg', hasTool('gpg')))('trusts no key that has expired or was revoked', async () => {
  const world = makeGitWorld();
  const open = ({ publicKey }: Signer) =>
    openGitSource(
      world.world,
      { url: world.server, verification: { keys: [publicKey] } },
      `cache-${publicKey}`,
    );

  const expired = gpgSigner(world, 'expired', 2021);
  pushAs(world, expired, 'signed while the key was valid');
  await expect(open(expired).sync(NEVER)).rejects.toMatchObject({
    code: 'access-denied',
    message: expect.stringContaining('the key has expired'),
  });

  const revoked = gpgSigner(world, 'revoked');
  pushAs(world, revoked, 'signed before the key was revoked');
  const source = open(revoked);
  await source.sync(NEVER);
  const [certificate = ''] = readdirSync(join(revoked.home, 'openpgp-revocs.d'));
  const path = join(revoked.home, 'openpgp-revocs.d', certificate);
  // A colon keeps the certificate from being used by accident.
  writeFileSync(path, readFileSync(path, 'utf8').replace(':-----BEGIN', '-----BEGIN'));
  revoked.gpg('--import', path);
  revoked.publish();
  await expect(source.sync(NEVER)).rejects.toMatchObject({
    code: 'access-denied',
    message: expect.stringContaining('the key was revoked'),
  });
});

const hasBoth = hasTool('gpg') && hasTool('ssh-keygen');

it.runIf(requireOrSkip('gpg and ssh-keygen', hasBoth))(
  'trusts keys of both kinds together, and neither kind because of the other',
  async () => {
    const world = makeGitWorld();
    const [ssh, gpg] = [sshSigner(world, 'ssh'), gpgSigner(world, 'gpg')];
    const open = (keys: string[]) =>
      openGitSource(world.world, { url: world.server, verification: { keys } }, `cache-${keys.join('-')}`);
    for (const [signer, other] of [
      [ssh, gpg],
      [gpg, ssh],
    ] as const) {
      pushAs(world, signer, 'signed');
      await open([ssh.publicKey, gpg.publicKey]).sync(NEVER);
      await open([signer.publicKey]).sync(NEVER);
      await expect(open([other.publicKey]).sync(NEVER)).rejects.toMatchObject({ code: 'access-denied' });
    }
  },
);

it('says which file holds no public key, and where', async () => {
  const world = makeGitWorld();
  world.push({ 'a.yaml': '' });
  mkdirSync(join(world.world, 'keys'));
  const failWith = async (text: string): Promise<string> => {
    writeFileSync(join(world.world, 'keys/key'), text);
    const source = openGitSource(world.world, { url: world.server, verification: { keys: ['keys/key'] } });
    return source.sync(NEVER).then(String, (error: Error) => error.message);
  };
  expect(await failWith('')).toContain('keys/key holds no key');
  expect(await failWith('# mine\nnonsense')).toContain('keys/key:2 is no public key');
  const key = `-----BEGIN ${'OPENSSH PRIVATE'} KEY-----\nx`;
  expect(await failWith(key)).toContain('keys/key holds a private key');
  expect(await failWith('ssh-ed25519 AAAA x\n* ssh-ed25519 AAAA\n')).toContain('keys/key:2 is no public key');
});

it('has no tag to verify when a branch is followed', async () => {
  const world = makeGitWorld();
  world.push({ 'a.yaml': '' });
  writeFileSync(join(world.world, 'key'), 'ssh-ed25519 AAAA x\n');
  const verification = { mode: 'Tag' as const, keys: ['key'] };
  await expect(
    openGitSource(world.world, { url: world.server, verification }).sync(NEVER),
  ).rejects.toMatchObject({
    code: 'invalid-manifest',
    message: expect.stringContaining('ref.tag or ref.semver'),
  });
});
