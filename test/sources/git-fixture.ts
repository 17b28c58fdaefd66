/** A repository of a test and its servers: the git command itself, http-backend, sshd. */

import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type RequestListener,
  type ServerResponse,
} from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { type AddressInfo, createServer as createTcpServer, type Server } from 'node:net';
import { userInfo } from 'node:os';
import { dirname, join } from 'node:path';
import { onTestFinished } from 'vitest';
import { createGitSource } from '../../src/sources/git-source.ts';
import type { Source } from '../../src/sources/source.ts';
import { isRoot } from '../support/requirements.ts';
import { temporaryFolder } from './support.ts';

const IDENTITY = {
  GIT_AUTHOR_NAME: 'Ann',
  GIT_AUTHOR_EMAIL: 'ann@example.com',
  GIT_COMMITTER_NAME: 'Ann',
  GIT_COMMITTER_EMAIL: 'ann@example.com',
  GIT_CONFIG_GLOBAL: '/dev/null',
  GIT_CONFIG_NOSYSTEM: '1',
};

export interface GitWorld {
  world: string;
  /** The bare repository that servers serve. */
  server: string;
  /** git in the work tree; its output without the line end. */
  git: (
    args: readonly string[],
    options?: { input?: string | Buffer; env?: Record<string, string> },
  ) => string;
  /** Writes files (null removes one), commits, pushes the branch by force; returns the commit. */
  push: (
    files: Record<string, string | null>,
    options?: { branch?: string; args?: string[]; commit?: string[] },
  ) => string;
}

export function makeGitWorld({ format = 'sha1' }: { format?: string } = {}): GitWorld {
  const world = temporaryFolder();
  const work = join(world, 'work');
  const server = join(world, 'server.git');
  const git: GitWorld['git'] = (args, { input, env } = {}) =>
    execFileSync('git', args, {
      cwd: work,
      input: input ?? '',
      env: { ...process.env, ...IDENTITY, ...env },
      stdio: ['pipe', 'pipe', 'pipe'],
      maxBuffer: 1 << 28,
    })
      .toString()
      .trimEnd();
  mkdirSync(work);
  git(['init', '--quiet', '--bare', '--initial-branch=main', `--object-format=${format}`, server]);
  // As the large hosters have it.
  git(['-C', server, 'config', 'uploadpack.allowFilter', 'true']);
  git(['-C', server, 'config', 'uploadpack.allowAnySHA1InWant', 'true']);
  git(['init', '--quiet', '--initial-branch=main', `--object-format=${format}`]);
  git(['remote', 'add', 'origin', server]);
  return {
    world,
    server,
    git,
    push(files, { branch = 'main', args = [], commit = [] } = {}) {
      for (const [path, text] of Object.entries(files)) {
        if (text === null) {
          git(['rm', '-r', '--quiet', path]);
          continue;
        }
        mkdirSync(dirname(join(work, path)), { recursive: true });
        writeFileSync(join(work, path), text);
      }
      git(['add', '--all']);
      git([...args, 'commit', '--quiet', '--allow-empty', '--message', 'change', ...commit]);
      git(['push', '--quiet', '--force', 'origin', `HEAD:refs/heads/${branch}`]);
      return git(['rev-parse', 'HEAD']);
    },
  };
}

type GitConfig = Parameters<typeof createGitSource>[0]['git'];

export function openGitSource(world: string, git: GitConfig, cache = 'cache'): Source {
  const source = createGitSource(
    { name: 'fleet', git, interval: '1h' },
    { baseDirectory: world, cacheDirectory: join(world, cache) },
  );
  onTestFinished(() => source.close());
  return source;
}

export interface GitHttpServer {
  url: string;
  /** Of every request, in order. */
  requests: { path: string; authorization: string | undefined }[];
}

export interface HttpOptions {
  user?: string;
  password?: string;
  /** Certificate and key, PEM. */
  tls?: { cert: Buffer; key: Buffer };
  /** As proxies do that know nothing of git's protocol 2. */
  dropsProtocol?: boolean;
  /** Called before a request is answered. */
  onRequest?: () => void;
  /** Answers in place of git. */
  answer?: RequestListener | undefined;
}

/** Serves the folder's repositories with git http-backend. */
export async function serveHttp(folder: string, options: HttpOptions = {}): Promise<GitHttpServer> {
  const requests: GitHttpServer['requests'] = [];
  const expected =
    options.password === undefined
      ? undefined
      : `Basic ${Buffer.from(`${options.user ?? 'git'}:${options.password}`).toString('base64')}`;
  const listener: RequestListener = (request, response) => {
    requests.push({ path: request.url ?? '', authorization: request.headers.authorization });
    options.onRequest?.();
    if (expected !== undefined && request.headers.authorization !== expected) {
      response.writeHead(401, { 'www-authenticate': 'Basic realm="git"' }).end('who are you?');
    } else if (options.answer !== undefined) {
      options.answer(request, response);
    } else {
      void answerWithGit(folder, request, response, options);
    }
  };
  const server =
    options.tls === undefined ? createHttpServer(listener) : createHttpsServer(options.tls, listener);
  const port = await listen(server);
  onTestFinished(() => server.closeAllConnections());
  return { url: `${options.tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`, requests };
}

/** Has git http-backend answer for the folder's repositories. */
export async function answerWithGit(
  folder: string,
  request: IncomingMessage,
  response: ServerResponse,
  { dropsProtocol = false }: Pick<HttpOptions, 'dropsProtocol'> = {},
): Promise<void> {
  const { pathname, search } = new URL(request.url ?? '', 'http://x');
  const header = (name: string): string => String(request.headers[name] ?? '');
  const child = spawn('git', ['http-backend'], {
    env: {
      PATH: process.env.PATH,
      GIT_PROJECT_ROOT: folder,
      GIT_HTTP_EXPORT_ALL: '1',
      PATH_INFO: decodeURIComponent(pathname),
      QUERY_STRING: search.slice(1),
      REQUEST_METHOD: request.method,
      CONTENT_TYPE: header('content-type'),
      HTTP_CONTENT_ENCODING: header('content-encoding'),
      REMOTE_USER: 'somebody',
      ...(dropsProtocol ? {} : { GIT_PROTOCOL: header('git-protocol') }),
    },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  request.pipe(child.stdin);
  const output = Buffer.concat(await child.stdout.toArray());
  const end = output.indexOf('\r\n\r\n');
  const lines = output.subarray(0, end).toString().split('\r\n');
  const headers = Object.fromEntries(
    lines.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()]),
  );
  const { Status: status = '200', ...rest } = headers;
  response.writeHead(Number.parseInt(status, 10), rest).end(output.subarray(end + 4));
}

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  return (server.address() as AddressInfo).port;
}

export interface GitSshServer {
  /** `ssh://user@127.0.0.1:port`, to be followed by an absolute path. */
  url: string;
  /** Paths in the world. */
  keyFile: string;
  knownHostsFile: string;
}

/** One sshd for every connection, as inetd would start it: no port is guessed. */
export async function serveSsh(world: string): Promise<GitSshServer> {
  const file = (name: string): string => join(world, name);
  for (const name of ['host-key', 'user-key']) {
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', name, '-f', file(name)]);
  }
  if (isRoot) mkdirSync('/run/sshd', { recursive: true });
  writeFileSync(
    file('sshd_config'),
    [
      `HostKey ${file('host-key')}`,
      `AuthorizedKeysFile ${file('user-key.pub')}`,
      'StrictModes no',
      'UsePAM no',
      'PidFile none',
      'PermitRootLogin yes',
      'PasswordAuthentication no',
      'KbdInteractiveAuthentication no',
    ].join('\n'),
  );
  const server = createTcpServer((socket) => {
    const child = spawn('/usr/sbin/sshd', ['-i', '-f', file('sshd_config')], {
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    socket.pipe(child.stdin).on('error', () => socket.destroy());
    child.stdout.pipe(socket).on('error', () => child.kill());
    socket.on('close', () => child.kill());
  });
  const port = await listen(server);
  const hostKey = readFileSync(file('host-key.pub'), 'utf8').split(' ').slice(0, 2).join(' ');
  writeFileSync(file('known_hosts'), `[127.0.0.1]:${port} ${hostKey}\n`);
  return {
    url: `ssh://${userInfo().username}@127.0.0.1:${port}`,
    keyFile: 'user-key',
    knownHostsFile: 'known_hosts',
  };
}

/** A certificate for 127.0.0.1 that is its own authority. */
export function makeCertificate(world: string): { cert: Buffer; key: Buffer; file: string } {
  const [key, cert] = [join(world, 'tls.key'), join(world, 'tls.crt')];
  const subject = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'];
  execFileSync(
    'openssl',
    [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:prime256v1',
      '-nodes',
      '-days',
      '2',
      ...subject,
      '-keyout',
      key,
      '-out',
      cert,
    ],
    { stdio: 'ignore' },
  );
  return { cert: readFileSync(cert), key: readFileSync(key), file: realpathSync(cert) };
}
