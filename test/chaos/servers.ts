/** What the agent of a chaos run depends on: a registry and a git server, real ones, which can be stopped. */

import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { type Asked, type FaultProxy, startFaultProxy } from '../images/registry/fault-proxy.ts';
import {
  certsD,
  plainHttp,
  push,
  startRegistry,
  type TestRegistry,
} from '../images/registry/registry-fixture.ts';
import { answerWithGit } from '../sources/git-fixture.ts';

export class RegistryServer {
  readonly #registry: TestRegistry;
  readonly #proxy: FaultProxy;
  readonly configPath: string;
  #isUp = true;

  private constructor(registry: TestRegistry, proxy: FaultProxy, directory: string) {
    this.#registry = registry;
    this.#proxy = proxy;
    this.configPath = certsD(directory, plainHttp(proxy.host));
  }

  static async open(directory: string): Promise<RegistryServer> {
    const registry = await startRegistry(directory);
    return new RegistryServer(registry, await startFaultProxy(registry.host), directory);
  }

  /** The layout's image, by the name that manifests give it. */
  async push(layout: string, name: string): Promise<void> {
    await push(layout, `${this.#registry.host}/${name}`);
  }

  nameOf(name: string): string {
    return `${this.#proxy.host}/${name}`;
  }

  async stop(): Promise<void> {
    this.#isUp = false;
    await this.#registry.kill();
  }

  async start(): Promise<void> {
    if (!this.#isUp) await this.#registry.restart();
    this.#isUp = true;
  }

  /** Called at every request, before it is answered, until told otherwise. */
  onRequest(tell: ((asked: Asked) => void) | undefined): void {
    this.#proxy.fault =
      tell &&
      (({ asked }) => {
        tell(asked);
        return 'untouched';
      });
  }

  async close(): Promise<void> {
    await this.#proxy.close();
    await this.#registry.stop();
  }
}

/** Digests of an image's layers, of a layout with one image. */
export function layersOf(layout: string): string[] {
  return blobsOf(layout).slice(2);
}

/** Digests of the manifest, the configuration and the layers of a layout's only image. */
export function blobsOf(layout: string): string[] {
  const read = (file: string) => JSON.parse(readFileSync(join(layout, file), 'utf8'));
  const { manifests } = read('index.json') as { manifests: { digest: string }[] };
  const digest = manifests[0]?.digest ?? '';
  const { config, layers } = read(`blobs/${digest.replace(':', '/')}`) as {
    config: { digest: string };
    layers: { digest: string }[];
  };
  return [digest, config.digest, ...layers.map((layer) => layer.digest)];
}

export class GitServer {
  readonly #server: Server;
  readonly #port: number;
  readonly #work: string;

  private constructor(server: Server, work: string) {
    this.#server = server;
    this.#port = (server.address() as AddressInfo).port;
    this.#work = work;
  }

  static async open(directory: string): Promise<GitServer> {
    const work = join(directory, 'work');
    mkdirSync(work);
    const repository = join(directory, 'server.git');
    git(work, 'init', '--quiet', '--bare', '--initial-branch=main', repository);
    git(work, 'init', '--quiet', '--initial-branch=main');
    git(work, 'remote', 'add', 'origin', repository);
    const server = createServer((request, response) => void answerWithGit(directory, request, response));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new GitServer(server, work);
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}/server.git`;
  }

  /**
   * Pushes these files on top of what is there, or as a history of their own, also while the server is stopped. Returns
   * the commit.
   */
  publish(files: ReadonlyMap<string, string>, history: 'continued' | 'rewritten'): string {
    if (history === 'rewritten') git(this.#work, 'update-ref', '-d', 'HEAD');
    for (const [name, text] of files) writeFileSync(join(this.#work, name), text);
    git(this.#work, 'add', '--all');
    git(this.#work, 'commit', '--quiet', '--allow-empty', '--message', 'change');
    git(this.#work, 'push', '--quiet', '--force', 'origin', 'HEAD:main');
    return git(this.#work, 'rev-parse', 'HEAD');
  }

  async stop(): Promise<void> {
    if (!this.#server.listening) return;
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, 'close');
  }

  async start(): Promise<void> {
    if (this.#server.listening) return;
    this.#server.listen(this.#port, '127.0.0.1');
    await once(this.#server, 'listening');
  }
}

function git(directory: string, ...args: string[]): string {
  const identity = ['-c', 'user.name=Ann', '-c', 'user.email=ann@example.com'];
  const stdio = ['ignore', 'pipe', 'inherit'] as const;
  return execFileSync('git', [...identity, ...args], { cwd: directory, stdio: [...stdio] })
    .toString()
    .trim();
}
