/** Addresses of git repositories: which are taken, and what is refused in them. Source: git-fetch(1), "GIT URLS". */

import { isAbsolute, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { CimletError } from '../errors.ts';

export interface GitAddress {
  transport: 'https' | 'http' | 'ssh' | 'file';
  /** As git is given it, and safe to show: no secret is part of it. */
  url: string;
  /** True for a server on this machine. */
  isLoopback: boolean;
  /** A user name that is part of the address. */
  username?: string | undefined;
}

const TRANSPORTS: Record<string, GitAddress['transport']> = {
  'https:': 'https',
  'http:': 'http',
  'ssh:': 'ssh',
  'git+ssh:': 'ssh',
  'file:': 'file',
};

/** `user@host:path`; a single letter before the colon is a drive. */
const SCP_LIKE = /^(?:([\w.~-]+)@)?([\w.-]{2,}|\[[0-9a-fA-F:]+\]):(?!\/\/)([^\s]+)$/;

/**
 * Reads https, http, ssh and file addresses, `user@host:path`, and paths (relative ones to `baseDirectory`). Throws
 * `invalid-manifest` for anything else: other transports may run programs (ext::) or prove nothing (git://).
 */
export function parseGitAddress(text: string, baseDirectory: string): GitAddress {
  if (/\p{Cc}/u.test(text) || text.startsWith('-')) throw refuse(text, 'is no address');
  if (!/^[A-Za-z][A-Za-z0-9+.-]*:(\/\/|:)/.test(text)) {
    const scp = SCP_LIKE.exec(text);
    return scp === null || isAbsolute(text)
      ? fileAddress(resolve(baseDirectory, text))
      : scpAddress(text, scp);
  }
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const transport = url === undefined ? undefined : TRANSPORTS[url.protocol];
  if (url === undefined || transport === undefined) {
    throw refuse(text, 'has a transport that is not supported', 'use https, ssh, or a path');
  }
  if (url.password !== '') {
    throw refuse(
      withoutUser(url),
      'holds a password',
      'take it out of the address, replace it, and name a file with it in credentials: addresses are shown and logged',
    );
  }
  if (url.search !== '' || url.hash !== '') throw refuse(withoutUser(url), 'has a query or fragment');
  if (transport === 'file') return { transport, url: url.href, isLoopback: true };
  if (url.hostname === '' || url.hostname.startsWith('-')) throw refuse(text, 'names no host');
  return {
    transport,
    // As it was understood here: what git understands by the text itself may be another host.
    url: url.href,
    isLoopback: isLoopback(url.hostname),
    ...(url.username !== '' && { username: decodeURIComponent(url.username) }),
  };
}

function scpAddress(text: string, [, username, host = '', path = '']: RegExpExecArray): GitAddress {
  if (host.startsWith('-') || path.startsWith('-')) throw refuse(text, 'is no address');
  return { transport: 'ssh', url: text, isLoopback: isLoopback(host), username };
}

function fileAddress(path: string): GitAddress {
  return { transport: 'file', url: pathToFileURL(path).href, isLoopback: true };
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(host);
}

function withoutUser(url: URL): string {
  const shown = new URL(url.href);
  shown.username = '';
  shown.password = '';
  return shown.href;
}

function refuse(text: string, what: string, hint?: string): CimletError {
  return new CimletError('invalid-manifest', `git address ${JSON.stringify(text)} ${what}`, { hint });
}
