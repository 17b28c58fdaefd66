/** Which proxy a request goes through: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, read as Go's httpproxy reads them. */

import { BlockList, isIP } from 'node:net';
import { CimletError } from '../../errors.ts';

export interface ProxySettings {
  http?: string | undefined;
  https?: string | undefined;
  /** Hosts, domains (`.example.com`), addresses and CIDR ranges with or without port, or `*`. */
  no?: string | undefined;
}

export function proxySettingsOf(env: Readonly<Record<string, string | undefined>>): ProxySettings {
  return {
    http: env.http_proxy || env.HTTP_PROXY,
    https: env.https_proxy || env.HTTPS_PROXY,
    no: env.no_proxy || env.NO_PROXY,
  };
}

export interface ProxyServer {
  /** Without the password, which would get into messages. */
  uri: string;
  /** The Proxy-Authorization. */
  token: string | undefined;
}

/**
 * The proxy; undefined to connect directly, as always to this machine itself. Throws `failed-precondition` for a variable
 * that names none, without its value: there may be a password in it.
 */
export function proxyFor(url: URL, settings: ProxySettings): ProxyServer | undefined {
  const isSecure = url.protocol === 'https:';
  const proxy = isSecure ? settings.https : settings.http;
  if (proxy === undefined || isLoopback(url) || isExcluded(url, settings.no ?? '')) return undefined;
  return parseProxy(proxy, isSecure ? 'HTTPS_PROXY' : 'HTTP_PROXY');
}

function parseProxy(text: string, variable: string): ProxyServer {
  const wrong = (what: string) =>
    new CimletError('failed-precondition', `the variable ${variable} ${what}`, {
      hint: 'write it as http://user:password@host:port, with %25 for a percent sign',
    });
  const [, scheme = 'http'] = /^([^:/]*):\/\//.exec(text) ?? [];
  if (!['http', 'https'].includes(scheme.toLowerCase()))
    throw wrong(`names a proxy of the kind ${JSON.stringify(scheme)}, and only http and https are known`);
  const address = text.includes('://') ? text : `http://${text}`;
  const url = URL.canParse(address) ? new URL(address) : undefined;
  if (url === undefined) throw wrong('is no address of a proxy');
  const { username, password, origin } = url;
  if (username === '' && password === '') return { uri: origin, token: undefined };
  try {
    const account = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
    return { uri: origin, token: `Basic ${Buffer.from(account).toString('base64')}` };
  } catch {
    // What can't be decoded would be quoted.
    throw wrong('has a percent sign in its user or password that is not followed by two digits');
  }
}

function isLoopback(url: URL): boolean {
  const host = plainHost(url);
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

function plainHost(url: URL): string {
  return url.hostname.toLowerCase().replace(/^\[|\]$/g, '');
}

function isExcluded(url: URL, list: string): boolean {
  const host = plainHost(url);
  const port = url.port || (url.protocol === 'https:' ? '443' : '80');
  return list
    .toLowerCase()
    .split(/[\s,]+/)
    .filter((entry) => entry !== '')
    .some((entry) => {
      if (entry === '*') return true;
      if (entry.includes('/')) return isInRange(host, entry);
      const [, name = entry, ownPort = port] = /^(.+?):(\d+)$/.exec(isIP(entry) === 6 ? '' : entry) ?? [];
      const domain = name.replace(/^\*?\./, '').replace(/^\[|\]$/g, '');
      return ownPort === port && (host === domain || host.endsWith(`.${domain}`));
    });
}

function isInRange(host: string, range: string): boolean {
  const [network = '', bits = ''] = range.split('/');
  const family = isIP(network);
  const prefix = Number(bits);
  if (family === 0 || !/^\d+$/.test(bits) || prefix > (family === 4 ? 32 : 128)) return false;
  if (isIP(host) !== family) return false;
  const type = family === 4 ? 'ipv4' : 'ipv6';
  const ranges = new BlockList();
  ranges.addSubnet(network, prefix, type);
  return ranges.check(host, type);
}
