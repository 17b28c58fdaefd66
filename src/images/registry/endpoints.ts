/**
 * Where a registry is really reached: containerd's `certs.d/<host>/hosts.toml`, mirrors first and the registry itself
 * last, or docker's folder of certificates, or just `https://<host>/v2`. Source: containerd docs/hosts.md.
 */

import { readFile, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { parse, TomlDate, TomlError } from 'smol-toml';
import { CimletError, classify } from '../../errors.ts';
import {
  NO_TLS_SETTINGS,
  readAuthorities,
  readCertificateFolder,
  readClient,
  type TlsSettings,
} from './tls-files.ts';

export interface Endpoint {
  /** Address of the API's root, without a slash at the end: `https://mirror.example:5000/v2`. */
  base: string;
  /** `mirror.example:5000`. */
  host: string;
  /** Of the registry asked for, when this is a mirror of it; mirrors of several are told by `ns`. */
  mirrorOf: string | undefined;
  canPull: boolean;
  canResolve: boolean;
  canPush: boolean;
  /** Sent with every request to this host, and to no other. */
  headers: [name: string, value: string][];
  tls: TlsSettings;
  connectTimeoutMs: number | undefined;
}

/** Who may be asked what a tag is may be asked what refers to an image. */
const CAPABILITIES = ['pull', 'resolve', 'push', 'referrers'];

/**
 * In the order they are to be tried. `directory` has one folder per registry, and `_default` for those without one of
 * their own. Throws `failed-precondition` for a configuration that can't be followed, naming the file.
 */
export async function findEndpoints(registry: string, directory: string | undefined): Promise<Endpoint[]> {
  const folder = directory === undefined ? undefined : await findFolder(directory, registry);
  if (folder === undefined && directory !== undefined) await requireFolder(directory);
  if (folder === undefined) return [upstream(registry, NO_TLS_SETTINGS)];
  const file = join(folder, 'hosts.toml');
  const text = await readIfThere(file);
  if (text === undefined || text.trim() === '')
    return [upstream(registry, await readCertificateFolder(folder))];
  return new HostsFile(file, folder).read(text, registry);
}

/** The registry itself, reached as if nothing were configured. */
function upstream(registry: string, tls: TlsSettings): Endpoint {
  const host = registry === 'docker.io' ? 'registry-1.docker.io' : registry;
  return {
    base: `https://${host}/v2`,
    host,
    mirrorOf: undefined,
    canPull: true,
    canResolve: true,
    canPush: true,
    headers: [],
    tls,
    connectTimeoutMs: undefined,
  };
}

/** `host:5000` may be written `host_5000_`, for file systems without colons in names. */
async function findFolder(directory: string, registry: string): Promise<string | undefined> {
  const names = [registry.replace(/:(\d+)$/, '_$1_'), registry, '_default'];
  for (const name of new Set(names)) {
    const folder = join(directory, name);
    try {
      if ((await stat(folder)).isDirectory()) return folder;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ENOENT' && code !== 'EINVAL')
        throw classify(error, `read registry configuration ${folder}`);
    }
  }
  return undefined;
}

/** Who names a folder that isn't there would wonder why its settings do nothing. */
async function requireFolder(directory: string): Promise<void> {
  try {
    await stat(directory);
  } catch (error) {
    throw classify(
      error,
      `read registry configuration ${directory}`,
      '--registry-config, CIMLET_REGISTRY_CONFIG or registry.configPath names it',
    );
  }
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw classify(error, `read ${file}`);
  }
}

type Table = Record<string, unknown>;

/** One hosts.toml; what is wrong with it is said with its path and key. */
class HostsFile {
  readonly #file: string;
  readonly #folder: string;

  constructor(file: string, folder: string) {
    this.#file = file;
    this.#folder = folder;
  }

  async read(text: string, registry: string): Promise<Endpoint[]> {
    const root = this.#parse(text);
    const endpoints: Endpoint[] = [];
    for (const [host, settings] of Object.entries(this.#table(root.host ?? {}, 'host'))) {
      const key = `host."${host}"`;
      endpoints.push(await this.#endpoint(host, this.#table(settings, key), key, registry));
    }
    const { server } = root;
    if (server !== undefined && typeof server !== 'string') throw this.#wrong('server', 'must be a text');
    const own = server === undefined || server === '' ? upstream(registry, NO_TLS_SETTINGS).base : server;
    endpoints.push(await this.#endpoint(own, root, '', registry));
    return endpoints;
  }

  #parse(text: string): Table {
    try {
      return parse(text);
    } catch (error) {
      if (!(error instanceof TomlError)) throw error;
      const [reason] = error.message.split('\n');
      throw new CimletError('failed-precondition', `${this.#file}:${error.line}:${error.column}: ${reason}`, {
        cause: error,
      });
    }
  }

  async #endpoint(address: string, settings: Table, key: string, registry: string): Promise<Endpoint> {
    const { capabilities, override_path: overridePath, dial_timeout: dialTimeout } = settings;
    const url = this.#url(address, key);
    const can = capabilities === undefined ? CAPABILITIES : this.#texts(capabilities, `${key}.capabilities`);
    const unknown = can.find((capability) => !CAPABILITIES.includes(capability.toLowerCase()));
    if (unknown !== undefined)
      throw this.#wrong(`${key}.capabilities`, `has the unknown capability \`${unknown}\``);
    return {
      base: url.origin + apiPath(url.pathname, overridePath === true),
      host: url.host,
      mirrorOf: url.host === upstream(registry, NO_TLS_SETTINGS).host ? undefined : registry,
      canPull: can.some((capability) => capability.toLowerCase() === 'pull'),
      canResolve: can.some((capability) => capability.toLowerCase() === 'resolve'),
      canPush: can.some((capability) => capability.toLowerCase() === 'push'),
      headers: this.#headers(settings.header, `${key}.header`),
      tls: {
        skipVerify: settings.skip_verify === true,
        ca: await Promise.all(this.#files(settings.ca, `${key}.ca`).map(readAuthorities)),
        clients: await this.#clients(settings.client, `${key}.client`),
      },
      connectTimeoutMs:
        dialTimeout === undefined ? undefined : this.#duration(dialTimeout, `${key}.dial_timeout`),
    };
  }

  #url(address: string, key: string): URL {
    const whole = /^https?:\/\//.test(address) ? address : `https://${address}`;
    const url = URL.canParse(whole) ? new URL(whole) : undefined;
    if (url === undefined || url.hostname === '')
      throw this.#wrong(key || 'server', 'is no address of a host');
    if (url.username !== '' || url.password !== '') {
      throw this.#wrong(
        key === '' ? 'server' : 'host',
        'has a password in an address, where it would be shown in messages',
      );
    }
    // As written in many a hosts.toml; the API of Docker Hub has another name.
    if (url.host === 'docker.io') url.host = 'registry-1.docker.io';
    return url;
  }

  #headers(value: unknown, key: string): [string, string][] {
    return Object.entries(this.#table(value ?? {}, key)).flatMap(([name, values]) =>
      this.#texts(values, `${key}.${name}`).map((text): [string, string] => [name.toLowerCase(), text]),
    );
  }

  /** A file with both, several such files, or pairs of certificate and key, which may be no file. */
  async #clients(value: unknown, key: string): Promise<TlsSettings['clients']> {
    const items = value === undefined ? [] : Array.isArray(value) ? value : [value];
    return Promise.all(
      items.map(async (item: unknown) => {
        const [cert = '', keyFile = '', ...others] = this.#texts(item, key);
        if (cert === '' || others.length > 0) throw this.#wrong(key, 'must name a certificate and its key');
        return readClient(resolve(this.#folder, cert), resolve(this.#folder, keyFile || cert));
      }),
    );
  }

  #files(value: unknown, key: string): string[] {
    return value === undefined ? [] : this.#texts(value, key).map((name) => resolve(this.#folder, name));
  }

  #texts(value: unknown, key: string): string[] {
    const texts: unknown[] = Array.isArray(value) ? value : [value];
    return texts.map((text) => {
      if (typeof text !== 'string') throw this.#wrong(key, 'must be a text or a list of texts');
      return text;
    });
  }

  #table(value: unknown, key: string): Table {
    if (typeof value !== 'object' || value === null || Array.isArray(value) || value instanceof TomlDate) {
      throw this.#wrong(key, 'must be a table');
    }
    return value as Table;
  }

  /** As Go writes durations: `300ms`, `1m30s`. */
  #duration(value: unknown, key: string): number {
    const units: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
    const text = String(value);
    if (!/^(?:\d+(?:\.\d+)?(?:ms|s|m|h))+$/.test(text))
      throw this.#wrong(key, 'must be a duration such as "10s"');
    const parts = text.matchAll(/([\d.]+)(ms|s|m|h)/g);
    return [...parts].reduce((sum, [, count, unit = '']) => sum + Number(count) * (units[unit] ?? 0), 0);
  }

  #wrong(key: string, what: string): CimletError {
    return new CimletError('failed-precondition', `${this.#file}: ${key.replace(/^\./, '')} ${what}`, {
      hint: "the format is containerd's hosts.toml; docs/registries.md has an example",
    });
  }
}

function apiPath(path: string, isOverridden: boolean): string {
  const clean = path.replace(/\/{2,}/g, '/').replace(/\/$/, '');
  return isOverridden || clean.endsWith('/v2') ? clean : `${clean}/v2`;
}
