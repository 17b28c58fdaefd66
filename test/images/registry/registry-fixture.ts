/** Debian's docker-registry on loopback, images pushed by skopeo, and pulls by the code under test. */

import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { expect } from 'vitest';
import type { EffectContext } from '../../../src/hosts/host.ts';
import { openBlobStore } from '../../../src/images/blob-store.ts';
import { writeOciLayout } from '../../../src/images/layout-writer.ts';
import {
  openRegistries,
  type RegistryImage,
  type RegistryOptions,
} from '../../../src/images/registry/registries.ts';
import { resolveImage } from '../../../src/images/resolve-image.ts';
import { sumProgress } from '../../../src/images/sum-progress.ts';
import type { ResolvedImage } from '../../../src/images/types.ts';
import { hasTool, requireOrSkip } from '../../support/requirements.ts';

export const canRunRegistry = requireOrSkip(
  'docker-registry and skopeo',
  hasTool('docker-registry') && hasTool('skopeo'),
);

export const run = promisify(execFile);

export interface TestRegistry {
  /** `127.0.0.1:port`. */
  host: string;
  /** Ends the process; what was pushed stays. */
  kill(): Promise<void>;
  /** After `kill`: at the same address. */
  restart(): Promise<void>;
  /** For good. */
  stop(): Promise<void>;
}

export interface TestRegistryOptions {
  /** The account `robot` with `PASSWORD` is needed. */
  signIn?: boolean;
  tls?: { certificate: string; key: string; clientCa?: string };
}

export const USER = 'robot';
export const PASSWORD = 'sesame-0pen';
/** bcrypt of PASSWORD, made by libcrypt. */
const PASSWORD_HASH = '$2y$05$abcdefghijklmnopqrstuu4DLnPoVA/gxWsTmSS2j5wJgpq84sn8S';

export async function startRegistry(
  directory: string,
  { signIn = false, tls }: TestRegistryOptions = {},
): Promise<TestRegistry> {
  const folder = mkdtempSync(join(directory, 'registry-'));
  const config = (addr: string) => ({
    version: 0.1,
    log: { level: 'info', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: join(folder, 'data') } },
    http: {
      addr,
      ...(tls === undefined
        ? {}
        : {
            tls: {
              certificate: tls.certificate,
              key: tls.key,
              ...(tls.clientCa === undefined ? {} : { clientcas: [tls.clientCa] }),
            },
          }),
    },
    ...(signIn ? { auth: { htpasswd: { realm: 'test', path: join(folder, 'htpasswd') } } } : {}),
  });
  writeFileSync(join(folder, 'htpasswd'), `${USER}:${PASSWORD_HASH}\n`);
  const serve = (addr: string) => {
    // JSON is YAML.
    writeFileSync(join(folder, 'config.yml'), JSON.stringify(config(addr)));
    return serveRegistry(join(folder, 'config.yml'));
  };
  let serving = await serve('127.0.0.1:0');
  const { host } = serving;
  return {
    host,
    kill: () => serving.kill(),
    async restart() {
      serving = await serve(host);
    },
    async stop() {
      await serving.kill();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Resolves once it listens. */
async function serveRegistry(configFile: string): Promise<Pick<TestRegistry, 'host' | 'kill'>> {
  const child = spawn('docker-registry', ['serve', configFile], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { PATH: process.env.PATH, OTEL_TRACES_EXPORTER: 'none' },
  });
  const closed = once(child, 'close');
  const log: string[] = [];
  for await (const line of createInterface({ input: child.stderr })) {
    log.push(line);
    const port = /listening on 127\.0\.0\.1:(\d+)/.exec(line)?.[1];
    if (port === undefined) continue;
    child.stderr.resume();
    return {
      host: `127.0.0.1:${port}`,
      async kill() {
        child.kill('SIGKILL');
        await closed;
      },
    };
  }
  throw new Error(`docker-registry did not start:\n${log.join('\n')}`);
}

/** Different in every layer, and not to be compressed away. */
export function noise(bytes: number, seed: string): Buffer {
  const blocks: Buffer[] = [];
  for (let at = 0; at * 32 < bytes; at++) blocks.push(createHash('sha256').update(`${seed} ${at}`).digest());
  return Buffer.concat(blocks).subarray(0, bytes);
}

export const LAYER_BYTES = [1_500_000, 200_000, 1000];

/** A Windows image in three layers of noise, as an OCI layout. */
export async function makeImage(directory: string, seed = 'app'): Promise<string> {
  const layout = join(directory, `layout-${seed}`);
  const layers = LAYER_BYTES.map((bytes, index) => ({
    tar: [noise(bytes, `${seed} ${index}`)],
    compression: 'gzip' as const,
  }));
  await writeOciLayout(layout, {
    layers,
    platform: { os: 'windows', architecture: 'amd64', osVersion: '10.0.26100.1742' },
    ref: 'v1',
  });
  return layout;
}

export async function push(layout: string, target: string, flags: string[] = []): Promise<void> {
  await run('skopeo', [
    'copy',
    '--quiet',
    '--dest-tls-verify=false',
    ...flags,
    `oci:${layout}:v1`,
    `docker://${target}`,
  ]);
}

/** A certs.d with one hosts.toml per registry. */
export function certsD(directory: string, hosts: Record<string, string>): string {
  const folder = mkdtempSync(join(directory, 'certs.d-'));
  for (const [host, toml] of Object.entries(hosts)) {
    const own = join(folder, host.replace(/:(\d+)$/, '_$1_'));
    mkdirSync(own);
    writeFileSync(join(own, 'hosts.toml'), toml);
  }
  return folder;
}

export const plainHttp = (host: string) => ({ [host]: `server = "http://${host}"\n` });

export interface PullOptions extends Partial<Omit<RegistryOptions, 'store' | 'mayWrite'>> {
  root: string;
  signal?: AbortSignal;
  progress?: EffectContext['progress'];
  image?: Partial<RegistryImage>;
  mayWrite?: boolean;
  /** Stop after resolving. */
  resolveOnly?: boolean;
}

/** Hardly any waiting between attempts. */
export const QUICK = { baseMs: 1, capMs: 4, retries: 3, patienceMs: 50 };

/** All that applying an Image does, in a session of its own. */
export async function pull(reference: string, options: PullOptions): Promise<ResolvedImage> {
  const { root, signal = new AbortController().signal, progress, image, resolveOnly, ...rest } = options;
  const store = openBlobStore(join(root, 'images'));
  const registries = openRegistries({
    env: { DOCKER_CONFIG: '/nonexistent' },
    backoff: QUICK,
    ...rest,
    store,
    mayWrite: options.mayWrite ?? true,
  });
  try {
    const source = registries.source({
      reference,
      policy: 'IfNotPresent',
      foreignLayers: 'registry-first',
      digest: undefined,
      ...image,
    });
    const request = { host: { os: 'windows', architecture: 'amd64' }, digest: image?.digest };
    const resolved = await resolveImage(source, request, signal);
    if (resolveOnly === true) return resolved;
    const blobs = resolved.layers.map(({ blob }) => blob);
    const progressOf = sumProgress(blobs, progress === undefined ? {} : { progress });
    const fetching = blobs.map((blob) => registries.fetchLayer(blob, { signal, progress: progressOf(blob) }));
    const [failed] = (await Promise.allSettled(fetching)).filter(({ status }) => status === 'rejected');
    if (failed?.status === 'rejected') throw failed.reason;
    await registries.recordImage({ reference, tags: image?.tags });
    return resolved;
  } finally {
    await registries.close();
  }
}

/** Every file that has a blob's name has that digest: nothing partial, nothing wrong is ever visible. */
export function expectNoPartialBlobs(root: string): string[] {
  const names = filesIn(join(root, 'images/blobs/sha256'));
  for (const name of names) {
    const bytes = readFileSync(join(root, 'images/blobs/sha256', name));
    expect(createHash('sha256').update(bytes).digest('hex')).toBe(name);
  }
  return names;
}

/** The image is here, byte for byte, and nothing else is left over. */
export function expectWhole(root: string, { layers, digest }: ResolvedImage): void {
  const names = expectNoPartialBlobs(root);
  for (const { blob } of layers) expect(names).toContain(blob.digest.slice(7));
  expect(names).toContain(digest.slice(7));
  expect(filesIn(join(root, 'images/ingest'))).toEqual([]);
}

export function filesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

export function scratch(prefix = 'cimlet-registry-'): string {
  return mkdtempSync(join(tmpdir(), prefix));
}

/** What an operator would see of an error, with all that is underneath. */
export function everythingSaid(error: unknown): string {
  const seen: string[] = [];
  for (let at: unknown = error; at instanceof Error && seen.length < 20; at = at.cause) {
    seen.push(at.message, at.stack ?? '', JSON.stringify(at));
  }
  return seen.join('\n');
}
