/**
 * What git runs with: a configuration of ours in place of the user's and the system's, and credentials by its two
 * doors for them, an askpass program and an ssh program. Both are constant scripts (git for Windows runs them with the
 * shell it brings); what differs is in the environment, so that nothing is quoted for a shell and nothing secret is in
 * an argument or a file.
 */

import { mkdir, writeFile } from 'node:fs/promises';
import { delimiter, dirname, join, resolve, sep } from 'node:path';
import { CimletError, classify } from '../errors.ts';
import { readSecret } from '../manifests/secrets.ts';
import type { GitSource as GitConfig } from '../manifests/types.gen.ts';
import type { GitAddress } from './git-address.ts';
import type { GitSettings } from './git-command.ts';

const ASKPASS = `#!/bin/sh
case "$1" in
Username*) printf '%s\\n' "$CIMLET_GIT_USERNAME" ;;
Password*) printf '%s\\n' "$CIMLET_GIT_PASSWORD" ;;
esac
`;

/** Knows no configuration, agent or host key but what it is given, asks nothing, and gives up on a dead server. */
const SSH = `#!/bin/sh
exec ssh -F none -a -x -T \\
  -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 -o ServerAliveCountMax=4 \\
  -o IdentitiesOnly=yes -o IdentityAgent=none -o "IdentityFile=\\"$CIMLET_SSH_KEY\\"" \\
  -o StrictHostKeyChecking=yes -o UpdateHostKeys=no -o GlobalKnownHostsFile=none \\
  -o "UserKnownHostsFile=\\"$CIMLET_SSH_KNOWN_HOSTS\\"" "$@"
`;

/** What of cimlet's own environment git and ssh get: to be found, to find their way, and to trust whom this machine trusts. */
const PASSED_ON =
  /^(PATH|PATHEXT|SYSTEMROOT|SYSTEMDRIVE|WINDIR|COMSPEC|TMPDIR|TEMP|TMP|SSL_CERT_FILE|SSL_CERT_DIR|(HTTPS?|ALL|NO)_PROXY)$/i;

function passedOn({ CIMLET_GIT_PATH, ...own }: NodeJS.ProcessEnv): Record<string, string> {
  const passed: Record<string, string> = {};
  for (const [name, value] of Object.entries(own)) {
    if (value === undefined || !PASSED_ON.test(name)) continue;
    const isSearched = CIMLET_GIT_PATH !== undefined && name.toUpperCase() === 'PATH';
    passed[name] = isSearched ? `${CIMLET_GIT_PATH}${delimiter}${value}` : value;
  }
  return passed;
}

export interface GitEnvironmentInput {
  config: GitConfig;
  address: GitAddress;
  cacheDirectory: string;
  baseDirectory: string;
}

/**
 * Makes what git needs in `cacheDirectory`, and reads the credentials, anew each time, so that they may be replaced.
 * Throws `invalid-manifest` for credentials that don't go with the address, `not-found` and `access-denied` for files.
 */
export async function prepareGit(input: GitEnvironmentInput): Promise<GitSettings> {
  const { cacheDirectory } = input;
  const file = (name: string): string => join(cacheDirectory, name);
  const credentials = await readCredentials(input);
  try {
    await mkdir(file('home'), { recursive: true, mode: 0o700 });
    await writeFile(file('gitconfig'), configText(configOf(input)));
    await writeFile(file('askpass'), ASKPASS, { mode: 0o700 });
    await writeFile(file('ssh'), SSH, { mode: 0o700 });
  } catch (error) {
    throw classify(error, `prepare git in ${cacheDirectory}`);
  }
  return {
    directory: cacheDirectory,
    secrets: credentials.secrets,
    environment: {
      ...passedOn(process.env),
      ...credentials.environment,
      LC_ALL: 'C',
      // No .netrc, no .ssh, no .gnupg, nothing below .config.
      HOME: file('home'),
      GIT_CONFIG_NOSYSTEM: '1',
      GIT_CONFIG_GLOBAL: file('gitconfig'),
      GIT_ATTR_NOSYSTEM: '1',
      GIT_CEILING_DIRECTORIES: dirname(cacheDirectory),
      GIT_NO_REPLACE_OBJECTS: '1',
      GIT_ALLOW_PROTOCOL: 'https:http:ssh:file',
      GIT_TERMINAL_PROMPT: '0',
      GIT_ASKPASS: file('askpass'),
      GIT_SSH: file('ssh'),
      GIT_SSH_VARIANT: 'ssh',
    },
  };
}

/** Section, key, value. */
type Setting = [section: string, key: string, value: string];

function configOf({ config, address, baseDirectory }: GitEnvironmentInput): Setting[] {
  return [
    ['remote "origin"', 'url', address.url],
    ['protocol', 'version', '2'],
    // A redirection would take the credentials to whomever the server names.
    ['http', 'followRedirects', 'false'],
    ['http', 'lowSpeedLimit', '1000'],
    ['http', 'lowSpeedTime', '60'],
    ...(config.caFile === undefined
      ? []
      : ([['http', 'sslCAInfo', resolve(baseDirectory, config.caFile)]] satisfies Setting[])),
    ['init', 'templateDir', ''],
    ['init', 'defaultBranch', 'main'],
    // A folder that can't be: no hook is ever found.
    ['core', 'hooksPath', '/dev/null/hooks'],
    ['core', 'fsmonitor', 'false'],
    ['core', 'longPaths', 'true'],
    // Larger objects are streamed, not held in memory.
    ['core', 'bigFileThreshold', '16m'],
    ['pack', 'threads', '1'],
    ['gc', 'auto', '0'],
    ['maintenance', 'auto', 'false'],
    ['fetch', 'recurseSubmodules', 'false'],
    ['submodule', 'recurse', 'false'],
    ['transfer', 'credentialsInUrl', 'die'],
    ['transfer', 'bundleURI', 'false'],
    ['gpg "x509"', 'program', 'false'],
  ];
}

function configText(settings: readonly Setting[]): string {
  const quote = (value: string): string => `"${value.replace(/["\\]/g, '\\$&')}"`;
  return settings.map(([section, key, value]) => `[${section}]\n\t${key} = ${quote(value)}\n`).join('');
}

interface Credentials {
  environment: Record<string, string>;
  secrets: string[];
}

async function readCredentials({
  config,
  address,
  baseDirectory,
}: GitEnvironmentInput): Promise<Credentials> {
  const { credentials } = config;
  if (credentials === undefined) {
    if (address.transport !== 'ssh') return { environment: {}, secrets: [] };
    throw mismatch(address, 'needs credentials.sshKeyFile and knownHostsFile');
  }
  if (credentials.sshKeyFile !== undefined) {
    if (address.transport !== 'ssh') throw mismatch(address, 'takes no sshKeyFile');
    return {
      environment: {
        CIMLET_SSH_KEY: sshPath(resolve(baseDirectory, credentials.sshKeyFile)),
        CIMLET_SSH_KNOWN_HOSTS: sshPath(resolve(baseDirectory, credentials.knownHostsFile ?? '')),
      },
      secrets: [],
    };
  }
  if (address.transport === 'http' && !address.isLoopback) {
    throw mismatch(address, 'would send the password readable for all on the way', 'use https');
  }
  if (address.transport !== 'https' && address.transport !== 'http') {
    throw mismatch(address, 'takes no token or password');
  }
  const { tokenFile, passwordFile, tokenVariable } = credentials;
  const place = { file: tokenFile ?? passwordFile, variable: tokenVariable };
  const secret = await readSecret('git credentials', place, baseDirectory);
  const username = address.username ?? credentials.username ?? 'git';
  return {
    environment: { CIMLET_GIT_USERNAME: username, CIMLET_GIT_PASSWORD: secret },
    secrets: [secret, `${username}:${secret}`],
  };
}

/** ssh reads these paths as parts of its configuration, where some characters mean more than themselves. */
function sshPath(path: string): string {
  if (/["%$~\n]/.test(path)) {
    throw new CimletError('invalid-manifest', `${JSON.stringify(path)} can't be given to ssh`, {
      hint: 'use a path without quotes, %, $ and ~ for sshKeyFile and knownHostsFile',
    });
  }
  return path.replaceAll(sep, '/');
}

function mismatch(address: GitAddress, what: string, hint?: string): CimletError {
  return new CimletError('invalid-manifest', `git repository ${address.url} ${what}`, { hint });
}
