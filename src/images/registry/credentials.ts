/**
 * Who signs in where: what cimlet.yaml says, else docker's configuration. Sources: docker's config.json
 * (docker/cli, cli/config/types) and the protocol of docker-credential-helpers (README.md).
 */

import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { CimletError, classify } from '../../errors.ts';

/** Never part of a message, a log or a file. */
export type Credentials =
  | { kind: 'password'; username: string; password: string }
  /** An OAuth2 refresh token for the registry's token server. */
  | { kind: 'identityToken'; token: string }
  /** Sent as it is. */
  | { kind: 'registryToken'; token: string };

/** Exactly one of dockerConfig, helper, passwordFile, passwordEnv; `registry` omitted stands for every one. */
export interface CredentialRule {
  registry?: string | undefined;
  dockerConfig?: string | undefined;
  helper?: string | undefined;
  username?: string | undefined;
  passwordFile?: string | undefined;
  passwordEnv?: string | undefined;
}

export interface CredentialSettings {
  rules: readonly CredentialRule[];
  /** Docker's config.json, used where no rule fits; it need not exist. */
  defaultDockerConfig: string | undefined;
  env: Readonly<Record<string, string | undefined>>;
}

/** Where docker keeps what it knows of Docker Hub. */
const DOCKER_HUB_KEY = 'https://index.docker.io/v1/';
const HELPER_NAME = /^[A-Za-z0-9._-]+$/;
const HELPER_TIMEOUT_MS = 30_000;
const HELPER_OUTPUT_LIMIT = 1 << 20;

/**
 * Credentials for a host (`registry-1.docker.io` stands for docker.io), or undefined to stay anonymous. Throws
 * `failed-precondition`, `not-found` or `access-denied` when what is configured can't be used.
 */
export async function findCredentials(
  host: string,
  settings: CredentialSettings,
  signal: AbortSignal,
): Promise<Credentials | undefined> {
  const registry = registryOf(host);
  for (const rule of settings.rules) {
    if (rule.registry !== undefined && registryOf(rule.registry) !== registry) continue;
    const found = await applyRule(rule, registry, settings, signal);
    if (found !== undefined) return found;
  }
  const { defaultDockerConfig } = settings;
  if (defaultDockerConfig === undefined) return undefined;
  return fromDockerConfig(defaultDockerConfig, registry, settings, { mayLack: true }, signal);
}

async function applyRule(
  rule: CredentialRule,
  registry: string,
  settings: CredentialSettings,
  signal: AbortSignal,
): Promise<Credentials | undefined> {
  const { dockerConfig, helper, username = '', passwordFile, passwordEnv } = rule;
  if (dockerConfig !== undefined) {
    return fromDockerConfig(dockerConfig, registry, settings, { mayLack: false }, signal);
  }
  if (helper !== undefined) return askHelper(helper, registry, settings, signal);
  const password =
    passwordFile === undefined
      ? readVariable(passwordEnv, registry, settings)
      : await readPassword(passwordFile);
  return { kind: 'password', username, password };
}

async function readPassword(file: string): Promise<string> {
  try {
    return (await readFile(file, 'utf8')).replace(/\r?\n$/, '');
  } catch (error) {
    throw classify(error, `read password file ${file}`);
  }
}

function readVariable(name: string | undefined, registry: string, { env }: CredentialSettings): string {
  const value = name === undefined ? undefined : env[name];
  if (value !== undefined && value !== '') return value;
  throw new CimletError('failed-precondition', `sign in to ${registry}: the variable ${name} is not set`, {
    hint: 'set it where cimlet is started, or change registry.credentials',
  });
}

interface DockerAuth {
  auth?: unknown;
  username?: unknown;
  password?: unknown;
  identitytoken?: unknown;
  registrytoken?: unknown;
}

interface DockerConfig {
  auths?: Record<string, DockerAuth>;
  credHelpers?: Record<string, unknown>;
  credsStore?: unknown;
}

async function fromDockerConfig(
  file: string,
  registry: string,
  settings: CredentialSettings,
  { mayLack }: { mayLack: boolean },
  signal: AbortSignal,
): Promise<Credentials | undefined> {
  const config = await readDockerConfig(file, mayLack);
  const own = ownProperty(config.credHelpers, registry) ?? ownProperty(config.credHelpers, hubKey(registry));
  const helper = own ?? config.credsStore;
  if (typeof helper === 'string' && helper !== '') {
    const found = await askHelper(helper, registry, settings, signal);
    if (found !== undefined) return found;
  }
  const key = Object.keys(config.auths ?? {}).find(
    (each) => each === hubKey(registry) || hostOf(each) === registry,
  );
  return key === undefined ? undefined : readAuth(config.auths?.[key] ?? {}, `${file}: auths["${key}"]`);
}

async function readDockerConfig(file: string, mayLack: boolean): Promise<DockerConfig> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (mayLack && (code === 'ENOENT' || code === 'ENOTDIR' || code === 'EACCES')) return {};
    throw classify(error, `read ${file}`);
  }
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null) return value as DockerConfig;
  } catch {
    // The parser's message quotes the text, which holds passwords: it is no cause to keep.
  }
  throw new CimletError('failed-precondition', `read ${file}: not a JSON object`, {
    hint: 'sign in again with docker login, or name another file in registry.credentials',
  });
}

function readAuth(entry: DockerAuth, name: string): Credentials | undefined {
  const { auth, username, password, identitytoken, registrytoken } = entry;
  if (isText(registrytoken)) return { kind: 'registryToken', token: registrytoken };
  if (isText(identitytoken)) return { kind: 'identityToken', token: identitytoken };
  if (isText(username) && isText(password)) return { kind: 'password', username, password };
  if (!isText(auth)) return undefined;
  const decoded = Buffer.from(auth, 'base64').toString('utf8').replace(/\0+$/, '');
  const colon = decoded.indexOf(':');
  if (colon < 1) {
    throw new CimletError('failed-precondition', `${name}.auth is no base64 of user:password`);
  }
  return { kind: 'password', username: decoded.slice(0, colon), password: decoded.slice(colon + 1) };
}

/** A helper is given the server's name on standard input and prints JSON. */
async function askHelper(
  helper: string,
  registry: string,
  { env }: CredentialSettings,
  signal: AbortSignal,
): Promise<Credentials | undefined> {
  const program = `docker-credential-${helper}`;
  if (!HELPER_NAME.test(helper)) {
    throw new CimletError(
      'failed-precondition',
      `${JSON.stringify(helper)} is no name of a credential helper`,
    );
  }
  const { exitCode, output } = await runHelper(program, hubKey(registry), env, signal);
  if (exitCode !== 0) {
    if (/credentials not found/i.test(output)) return undefined;
    throw new CimletError('access-denied', `${program} get: exited with ${exitCode}`, {
      hint: `run it by hand: echo ${hubKey(registry)} | ${program} get`,
    });
  }
  const { Username: username, Secret: secret } = parseAnswer(output, program);
  if (!isText(secret)) return undefined;
  if (username === '<token>') return { kind: 'identityToken', token: secret };
  return { kind: 'password', username: isText(username) ? username : '', password: secret };
}

function parseAnswer(output: string, program: string): { Username?: unknown; Secret?: unknown } {
  try {
    const value: unknown = JSON.parse(output);
    if (typeof value === 'object' && value !== null) return value;
  } catch {
    // As above: the message would quote the secret.
  }
  throw new CimletError('failed-precondition', `${program} get: what it printed is no JSON object`);
}

function runHelper(
  program: string,
  input: string,
  env: CredentialSettings['env'],
  signal: AbortSignal,
): Promise<{ exitCode: number; output: string }> {
  return new Promise((resolve, reject) => {
    const options = { env: { ...env }, timeout: HELPER_TIMEOUT_MS, maxBuffer: HELPER_OUTPUT_LIMIT, signal };
    const child = execFile(program, ['get'], options, (error, output) => {
      if (error === null) resolve({ exitCode: 0, output });
      else if (typeof error.code === 'number') resolve({ exitCode: error.code, output });
      else reject(explainFailure(error, program, signal));
    });
    // A helper may end without reading; its answer tells.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(input);
  });
}

function explainFailure(
  error: Error & { killed?: boolean },
  program: string,
  signal: AbortSignal,
): CimletError {
  if (signal.aborted) return new CimletError('cancelled', `${program} get: cancelled`);
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT') {
    return new CimletError('not-found', `${program}: no such program on the PATH`, {
      hint: 'install the credential helper, or change credsStore or credHelpers in config.json',
    });
  }
  const what = error.killed === true ? `no answer in ${HELPER_TIMEOUT_MS / 1000} s` : (code ?? 'failed');
  return new CimletError('unavailable', `${program} get: ${what}`);
}

function hubKey(registry: string): string {
  return registry === 'docker.io' ? DOCKER_HUB_KEY : registry;
}

/** `https://host:5000/v1/` and `host:5000` are the same key. */
function hostOf(key: string): string {
  return registryOf(key.replace(/^https?:\/\//, '').replace(/\/.*$/, ''));
}

/** Docker Hub has several names. */
function registryOf(host: string): string {
  return ['registry-1.docker.io', 'index.docker.io'].includes(host) ? 'docker.io' : host;
}

function ownProperty(table: Record<string, unknown> | undefined, key: string): unknown {
  return table !== undefined && Object.hasOwn(table, key) ? table[key] : undefined;
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== '';
}
