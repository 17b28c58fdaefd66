import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { parseGitAddress } from '../../src/sources/git-address.ts';
import { describeGitFailure, redact } from '../../src/sources/git-errors.ts';
import { hasTool, requireOrSkip } from '../support/requirements.ts';
import { makeCertificate, makeGitWorld, openGitSource, serveHttp, serveSsh } from './git-fixture.ts';
import { NEVER, textsOf } from './support.ts';

const SECRET = 'glpat-Tr0ub4dor&3';
const SSHD = '/usr/sbin/sshd';

afterEach(() => void vi.unstubAllEnvs());

async function failureOf(promise: Promise<unknown>): Promise<Error & { code?: string; hint?: string }> {
  return promise.then(
    () => expect.fail('should have failed'),
    (error: unknown) => error as Error,
  );
}

/** Everything that is told of an error, however deep. */
function everythingSaid(error: unknown): string {
  return error instanceof Error
    ? `${error.message} ${JSON.stringify(error)} ${error.stack} ${everythingSaid(error.cause)}`
    : String(error);
}

/** All that a cache keeps, as text. */
function everythingKept(folder: string): string {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => readFileSync(join(entry.parentPath, entry.name), 'latin1'))
    .join('\n');
}

/** Of every process of this machine, as the kernel shows them to anybody. */
function commandLines(): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        return [readFileSync(`/proc/${pid}/cmdline`, 'utf8')];
      } catch (error) {
        if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
        throw error;
      }
    });
}

describe('http', () => {
  it('signs in with a token of a file or a variable, and asks for no more than it needs', async () => {
    const { world, push } = makeGitWorld();
    push({ 'fleet/a.yaml': 'a', 'other.yaml': 'other' });
    const { url, requests } = await serveHttp(world, { user: 'deploy', password: SECRET });
    writeFileSync(join(world, 'token'), `${SECRET}\r\n`);
    const config = { url: `${url}/server.git`, path: 'fleet' };
    const credentials = { username: 'deploy', tokenFile: 'token' };
    const cache = `it's a "cache" of $HOME`;
    const source = openGitSource(world, { ...config, credentials }, cache);
    expect(textsOf(await source.sync(NEVER))).toEqual({ 'a.yaml': 'a' });
    expect(everythingKept(join(world, cache))).not.toContain(SECRET);

    requests.length = 0;
    await source.sync(NEVER);
    expect(requests.filter(({ authorization }) => authorization !== undefined).length).toBeLessThanOrEqual(2);

    vi.stubEnv('FLEET_TOKEN', SECRET);
    const other = { username: 'deploy', tokenVariable: 'FLEET_TOKEN' };
    const fromVariable = openGitSource(world, { ...config, credentials: other }, 'other-cache');
    expect(textsOf(await fromVariable.sync(NEVER))).toEqual({ 'a.yaml': 'a' });
  });

  it('shows the token to no other process: it is in no command line while git asks with it', async () => {
    const { world, push } = makeGitWorld();
    push({ 'fleet/a.yaml': 'a', 'other.yaml': 'other' });
    writeFileSync(join(world, 'token'), SECRET);
    const seen: string[] = [];
    const { url } = await serveHttp(world, {
      password: SECRET,
      onRequest: () => seen.push(...commandLines()),
    });
    const config = { url: `${url}/server.git`, path: 'fleet', credentials: { tokenFile: 'token' } };
    await openGitSource(world, config).sync(NEVER);
    expect(seen.filter((line) => line.includes('remote-http')).length).toBeGreaterThan(0);
    expect(seen.filter((line) => line.includes(SECRET))).toEqual([]);
  });

  it('says that a token is wrong without saying which, and takes the next one', async () => {
    const { world, push } = makeGitWorld();
    push({ 'a.yaml': 'a' });
    const { url } = await serveHttp(world, { password: 'the right one' });
    const file = join(world, 'token');
    writeFileSync(file, SECRET);
    const source = openGitSource(world, { url: `${url}/server.git`, credentials: { tokenFile: 'token' } });
    const failure = await failureOf(source.sync(NEVER));
    expect(failure).toMatchObject({ code: 'access-denied' });
    expect(everythingSaid(failure)).not.toContain(SECRET);
    writeFileSync(file, '');
    expect(await failureOf(source.sync(NEVER))).toMatchObject({ code: 'not-found' });
    writeFileSync(file, 'the right one');
    expect(textsOf(await source.sync(NEVER))).toEqual({ 'a.yaml': 'a' });
  });

  it('asks nobody for a password when there are no credentials', async () => {
    const { world } = makeGitWorld();
    const { url } = await serveHttp(world, { password: 'x' });
    vi.stubEnv('GIT_ASKPASS', '/bin/false');
    expect(await failureOf(openGitSource(world, { url: `${url}/server.git` }).sync(NEVER))).toMatchObject({
      code: 'access-denied',
    });
  });

  it('does not follow a redirection, which would carry the token away', async () => {
    const { world } = makeGitWorld();
    const thief = await serveHttp(world, { password: 'x' });
    const honest = await serveHttp(world, {
      password: SECRET,
      answer: (request, response) =>
        response.writeHead(302, { location: `${thief.url}${request.url}` }).end(),
    });
    writeFileSync(join(world, 'token'), SECRET);
    const config = { url: `${honest.url}/server.git`, credentials: { tokenFile: 'token' } };
    const failure = await failureOf(openGitSource(world, config).sync(NEVER));
    expect(failure).toMatchObject({ code: 'not-found', hint: expect.stringContaining('redirections') });
    expect(thief.requests).toEqual([]);
  });

  it('keeps the token out of what a server says back, and control characters out of messages', async () => {
    const { world } = makeGitWorld();
    const { url } = await serveHttp(world, {
      password: SECRET,
      answer: (request, response) =>
        response
          .writeHead(403, { 'content-type': 'text/plain' })
          .end(`\u001b[2Jyou sent ${request.headers.authorization} which is ${SECRET}`),
    });
    writeFileSync(join(world, 'token'), SECRET);
    const config = { url: `${url}/server.git`, credentials: { tokenFile: 'token' } };
    const said = everythingSaid(await failureOf(openGitSource(world, config).sync(NEVER)));
    expect(said).not.toContain(SECRET);
    expect(said).not.toContain(Buffer.from(`git:${SECRET}`).toString('base64'));
    expect(said).not.toContain('\u001b[2J');
  });

  it.each([
    ['http://git.example.com/x.git', { tokenFile: 'token' }, 'https'],
    ['git@git.example.com:x.git', { tokenFile: 'token' }, 'takes no token'],
    ['https://git.example.com/x.git', { sshKeyFile: 'key', knownHostsFile: 'hosts' }, 'takes no sshKeyFile'],
    ['git@git.example.com:x.git', undefined, 'needs credentials.sshKeyFile'],
  ])('refuses %s with %j before anything is sent', async (url, credentials, expected) => {
    const { world } = makeGitWorld();
    writeFileSync(join(world, 'token'), SECRET);
    const config = { url, ...(credentials !== undefined && { credentials }) };
    const failure = await failureOf(openGitSource(world, config).sync(NEVER));
    expect(failure).toMatchObject({ code: 'invalid-manifest' });
    expect(`${failure.message} ${failure.hint}`).toContain(expected);
  });

  it('says that there is no such repository, no server, and a broken server', async () => {
    const { world } = makeGitWorld();
    const { url } = await serveHttp(world);
    const failing = await serveHttp(world, { answer: (_, response) => response.writeHead(503).end() });
    const codeOf = async (address: string, cache: string) =>
      (await failureOf(openGitSource(world, { url: address }, cache).sync(NEVER))).code;
    expect(await codeOf(`${url}/nothing.git`, 'c1')).toBe('not-found');
    expect(await codeOf('http://127.0.0.1:1/x.git', 'c2')).toBe('unavailable');
    expect(await codeOf(`${failing.url}/x.git`, 'c3')).toBe('unavailable');
  });

  it('gives up on a server that never answers: when told to, when closed, and after the timeout', async () => {
    const { world } = makeGitWorld();
    const held: ServerResponse[] = [];
    let asked: () => void = () => undefined;
    const { url } = await serveHttp(world, {
      answer: (_, response) => {
        held.push(response);
        asked();
      },
    });
    const nextRequest = (): Promise<void> => new Promise((resolve) => (asked = resolve));
    const config = { url: `${url}/x.git` };

    const source = openGitSource(world, config);
    const stopping = new AbortController();
    let request = nextRequest();
    const stopped = failureOf(source.sync(stopping.signal));
    await request;
    stopping.abort();
    expect(await stopped).toMatchObject({ code: 'cancelled' });

    request = nextRequest();
    const closed = failureOf(source.sync(NEVER));
    await request;
    await source.close();
    expect(await closed).toMatchObject({ code: 'cancelled' });

    const hasty = openGitSource(world, { ...config, timeout: '300ms' }, 'other-cache');
    expect(await failureOf(hasty.sync(NEVER))).toMatchObject({ code: 'unavailable' });
  });

  it('fetches whole commits from a server that leaves files out and then refuses to give them', async () => {
    const { world, server, git, push } = makeGitWorld();
    git(['-C', server, 'config', 'uploadpack.allowAnySHA1InWant', 'false']);
    const { url } = await serveHttp(world, { dropsProtocol: true });
    const source = openGitSource(world, { url: `${url}/server.git`, path: 'fleet' });
    for (const text of ['first', 'second']) {
      push({ 'fleet/a.yaml': text, 'other.yaml': 'x' });
      expect(textsOf(await source.sync(NEVER))).toEqual({ 'a.yaml': text });
    }
  });

  it('fetches from a server that knows nothing of leaving files out', async () => {
    const { world, server, git, push } = makeGitWorld();
    git(['-C', server, 'config', 'uploadpack.allowFilter', 'false']);
    const { url } = await serveHttp(world);
    const source = openGitSource(world, { url: `${url}/server.git`, path: 'fleet' });
    for (const text of ['first', 'second']) {
      push({ 'fleet/a.yaml': text, 'other.yaml': 'x' });
      expect(textsOf(await source.sync(NEVER))).toEqual({ 'a.yaml': text });
    }
  });

  it.runIf(requireOrSkip('openssl', hasTool('openssl')))(
    'trusts the authority it is given, and no unknown one',
    async () => {
      const { world, push } = makeGitWorld();
      push({ 'a.yaml': 'a' });
      const tls = makeCertificate(world);
      const { url } = await serveHttp(world, { tls, password: SECRET });
      writeFileSync(join(world, 'token'), SECRET);
      const config = { url: `${url}/server.git`, credentials: { tokenFile: 'token' } };
      expect(await failureOf(openGitSource(world, config).sync(NEVER))).toMatchObject({
        code: 'access-denied',
        hint: expect.stringContaining('caFile'),
      });
      const trusting = openGitSource(world, { ...config, caFile: tls.file }, 'other-cache');
      expect(textsOf(await trusting.sync(NEVER))).toEqual({ 'a.yaml': 'a' });
    },
  );
});

describe.runIf(requireOrSkip('sshd', existsSync(SSHD)))('ssh', () => {
  it('signs in with its key at the server it knows', async () => {
    const { world, server, push } = makeGitWorld();
    push({ 'fleet/a.yaml': 'a', 'other.yaml': 'x' });
    const { url, keyFile, knownHostsFile } = await serveSsh(world);
    mkdirSync(join(world, "ann's keys"));
    for (const file of [keyFile, knownHostsFile])
      renameSync(join(world, file), join(world, "ann's keys", file));
    const credentials = {
      sshKeyFile: `ann's keys/${keyFile}`,
      knownHostsFile: `ann's keys/${knownHostsFile}`,
    };
    const config = { url: `${url}${server}`, path: 'fleet', credentials };
    const source = openGitSource(world, config, "ann's cache");
    expect(textsOf(await source.sync(NEVER))).toEqual({ 'a.yaml': 'a' });
    push({ 'fleet/a.yaml': 'b' });
    expect(textsOf(await source.sync(NEVER))).toEqual({ 'a.yaml': 'b' });
  });

  it('refuses a server it does not know, a key the server does not know, and a key others can read', async () => {
    const { world, server, push } = makeGitWorld();
    push({ 'a.yaml': 'a' });
    const { url, keyFile, knownHostsFile } = await serveSsh(world);
    writeFileSync(join(world, 'no-hosts'), '');
    const syncWith = (sshKeyFile: string, hosts: string) =>
      openGitSource(
        world,
        { url: `${url}${server}`, credentials: { sshKeyFile, knownHostsFile: hosts } },
        `cache-${sshKeyFile}-${hosts}`,
      ).sync(NEVER);
    expect(await failureOf(syncWith(keyFile, 'no-hosts'))).toMatchObject({
      code: 'access-denied',
      hint: expect.stringContaining('knownHostsFile'),
    });
    expect(await failureOf(syncWith('host-key', knownHostsFile))).toMatchObject({
      code: 'access-denied',
      message: expect.stringContaining('Permission denied (publickey)'),
      hint: expect.stringContaining('credentials'),
    });
    chmodSync(join(world, keyFile), 0o644);
    expect(await failureOf(syncWith(keyFile, knownHostsFile))).toMatchObject({
      code: 'access-denied',
      hint: expect.stringContaining('sshKeyFile'),
    });
  });
});

describe('addresses', () => {
  it.each([
    ['https://git.example.com/x.git', 'https', 'https://git.example.com/x.git'],
    ['https://deploy@git.example.com/x.git', 'https', 'https://deploy@git.example.com/x.git'],
    ['ssh://git@git.example.com:2222/x.git', 'ssh', 'ssh://git@git.example.com:2222/x.git'],
    ['git@git.example.com:org/x.git', 'ssh', 'git@git.example.com:org/x.git'],
    ['host:x.git', 'ssh', 'host:x.git'],
    ['http://127.0.0.1\\@git.example.com/x.git', 'http', 'http://127.0.0.1/@git.example.com/x.git'],
    ['file:///srv/x.git', 'file', 'file:///srv/x.git'],
    ['/srv/my repo.git', 'file', 'file:///srv/my%20repo.git'],
    ['repos/x.git', 'file', 'file:///etc/cimlet/repos/x.git'],
  ])('%s is taken', (text, transport, url) => {
    expect(parseGitAddress(text, '/etc/cimlet')).toMatchObject({ transport, url });
  });

  it.each([
    'ext::sh -c touch% /tmp/x',
    'git://git.example.com/x.git',
    'ftp://git.example.com/x.git',
    'javascript://x/',
    'https://git.example.com/x.git?y',
    'ssh://-oProxyCommand=x/y',
    '-oProxyCommand=x:y',
    '--upload-pack=touch /tmp/x',
    'https://git.example.com/\nx',
  ])('%s is refused', (text) => {
    expect(() => parseGitAddress(text, '/etc/cimlet')).toThrow(
      expect.objectContaining({ code: 'invalid-manifest' }),
    );
  });

  it('an address with a password is refused without repeating the password', () => {
    const word = fc.stringMatching(/^[A-Za-z0-9]{8,20}$/);
    fc.assert(
      fc.property(word, (password) => {
        const attempt = (): unknown => parseGitAddress(`https://me:${password}@git.example.com/x.git`, '/');
        expect(attempt).toThrow('holds a password');
        expect(attempt).not.toThrow(password);
      }),
    );
  });
});

it('takes a secret out of any text', () => {
  fc.assert(
    fc.property(fc.string({ minLength: 4 }), fc.string(), fc.string(), (secret, before, after) => {
      fc.pre(!'***'.includes(secret) && !`${before}***${after}`.includes(secret));
      expect(redact(`${before}${secret}${after}`, [secret])).not.toContain(secret);
    }),
  );
});

it.each([
  [
    "fatal: unable to access 'https://x/': Failed to connect to x port 443 after 21 ms: Couldn't connect to server",
    "fatal: unable to access 'https://x/': Failed to connect to x port 443 after 3007 ms: Couldn't connect to server",
  ],
  [
    'error: RPC failed; curl 28 Operation timed out after 30001 milliseconds with 12 out of 99 bytes received',
    'error: RPC failed; curl 28 Operation timed out after 30004 milliseconds with 0 bytes received',
  ],
  [
    'fatal: cannot create /r/tmp-0f8fad5b-d9cb-469f-a165-70867728950e/x: No space left on device',
    'fatal: cannot create /r/tmp-7c9e6679-7425-40de-944b-e07fc1f90ae7/x: No space left on device',
  ],
  [
    'fatal: write error in /r/repository-0f8fad5b/objects/pack/tmp_pack_Ab3: No space left on device',
    'fatal: write error in /r/repository-7c9e6679/objects/pack/tmp_pack_Zz9: No space left on device',
  ],
])('what git says of the same trouble is the same each time: %s', (first, second) => {
  const told = (stderr: string) => describeGitFailure('fetch x', stderr).message;
  expect(told(second)).toBe(told(first));
});

it('makes one line of whatever git says', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 300 }), (stderr) => {
      const { message } = describeGitFailure('fetch x', stderr);
      expect(message).not.toMatch(/\p{Cc}/u);
      expect(message.length).toBeLessThan(600);
    }),
  );
});
