/** All that a chaos run consists of: what is declared, the agent, what it depends on, and what can be done to them. */

import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  statfsSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadManifests } from '../../src/manifests/load.ts';
import { mountsBelow, unmountBelow } from '../support/mounts.ts';
import { runProgram } from '../support/program.ts';
import { AgentProcess } from './agent-process.ts';
import {
  type AppName,
  declareInFolder,
  GIT_APPS,
  type GitApp,
  isGitApp,
  manifestOf,
  type Shape,
  writeImages,
} from './apps.ts';
import type { Random } from './random.ts';
import { GitServer, RegistryServer } from './servers.ts';

/** Size of the file system that the agent's root is. */
const DISK = '64m';

export class ChaosWorld {
  readonly directory = realpathSync(mkdtempSync(join(tmpdir(), 'cimlet-chaos-')));
  readonly root = join(this.directory, 'root');
  readonly views = join(this.directory, 'views');
  readonly images = join(this.directory, 'images');
  /** What is declared. */
  readonly apps = new Map<AppName, Shape>();
  readonly agent: AgentProcess;
  readonly #manifests = join(this.directory, 'manifests');
  readonly #filler = join(this.root, 'filler');
  #servers: { registry: RegistryServer; git: GitServer } | undefined;
  #gitRevision = '';
  /** It may refuse to start then. */
  #startedOnFullDisk = false;

  constructor() {
    const environment = { DOCKER_CONFIG: join(this.directory, 'no-docker') };
    this.agent = new AgentProcess(join(this.directory, 'cimlet.yaml'), environment);
  }

  get registry(): RegistryServer {
    return this.#running().registry;
  }

  /** Starts servers and agent; what is declared in the repository is what `shapeOf` says. */
  async begin(apps: ReadonlyMap<AppName, Shape>): Promise<void> {
    mkdirSync(this.root);
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK}`, 'tmpfs', this.root]);
    await writeImages(this.images);
    const registry = await RegistryServer.open(this.directory);
    this.#servers = { registry, git: await GitServer.open(this.directory) };
    for (const name of GIT_APPS) {
      for (const version of [1, 2])
        await registry.push(join(this.images, `${name}${version}`), `${name}:v${version}`);
    }
    const sources = [
      '{name: files, folder: {path: manifests}, interval: 500ms}',
      `{name: fleet, git: {url: "${this.#servers.git.url}", ref: {branch: main}}, interval: 500ms}`,
    ];
    writeFileSync(
      join(this.directory, 'cimlet.yaml'),
      `root: root\nregistry: {configPath: ${registry.configPath}}\nsources: [${sources.join(', ')}]\nintervals: {resync: 300ms}\n`,
    );
    for (const [name, shape] of apps) this.apps.set(name, shape);
    declareInFolder(this.#manifests, this.views, this.apps);
    this.#publish('continued');
    this.startAgent();
  }

  async end(): Promise<void> {
    await this.agent.kill();
    await this.#servers?.git.stop();
    await this.#servers?.registry.close();
    unmountBelow(this.directory);
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** Declares the app in this shape; undefined takes it out of the folder. */
  declare(name: AppName, shape: Shape | undefined, history: 'continued' | 'rewritten' = 'continued'): void {
    if (shape === undefined) this.apps.delete(name);
    else this.apps.set(name, shape);
    if (isGitApp(name)) this.#publish(history);
    else declareInFolder(this.#manifests, this.views, this.apps);
  }

  #publish(history: 'continued' | 'rewritten'): void {
    const { git, registry } = this.#running();
    const files = GIT_APPS.map((name): [string, string] => {
      const shape = this.#shapeOf(name);
      const source = `{registry: "${registry.nameOf(`${name}:v${shape.version}`)}"}`;
      return [`${name}.yaml`, manifestOf(name, shape, source, this.views)];
    });
    this.#gitRevision = `main@sha1:${git.publish(new Map(files), history)}`;
  }

  #shapeOf(name: GitApp): Shape {
    const shape = this.apps.get(name);
    if (shape === undefined) throw new Error(`${name} is always declared`);
    return shape;
  }

  #running(): { registry: RegistryServer; git: GitServer } {
    if (this.#servers === undefined) throw new Error('the run has not begun');
    return this.#servers;
  }

  /** Whatever its age. No agent may run. */
  async collectGarbage(): Promise<void> {
    const always = ['--min-age', '0s', '--high-water', '100', '--low-water', '100'];
    const { code, stderr } = await runProgram(['gc', ...always, '--root', this.root]);
    if (code !== 0) throw new Error(`gc ended with ${code}: ${stderr}`);
  }

  /** By source, what it must come to. */
  async revisions(): Promise<Record<string, string>> {
    return { files: (await loadManifests([this.#manifests])).revision, fleet: this.#gitRevision };
  }

  startAgent(): void {
    this.#startedOnFullDisk = existsSync(this.#filler);
    this.agent.start();
  }

  unmount(random: Random): string {
    const point = existsSync(this.views) ? random.pick(mountsBelow(this.views)) : undefined;
    if (point === undefined) return 'found nothing mounted';
    try {
      execFileSync('umount', [point], { stdio: 'ignore' });
    } catch {
      return `could not unmount ${point.slice(this.views.length)}`;
    }
    return `unmounted ${point.slice(this.views.length)}`;
  }

  damage(how: 'delete' | 'truncate', random: Random): string {
    const files = ['cim-layers', 'snapshots']
      .map((folder) => join(this.root, folder))
      .filter((folder) => existsSync(folder))
      .flatMap((folder) =>
        readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name)),
      )
      .filter((file) => statSync(file, { throwIfNoEntry: false })?.isFile() === true);
    const file = random.pick(files);
    if (file === undefined) return 'found no layer file';
    try {
      if (how === 'delete') rmSync(file);
      else truncateSync(file, Math.floor(statSync(file).size / 2));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
    return `${how}d ${file.slice(this.root.length + 1).replaceAll(/[0-9a-f]{58}(?=[0-9a-f]{6})/g, '…')}`;
  }

  fillDisk(): string {
    const { bavail, bsize } = statfsSync(this.root);
    try {
      writeFileSync(this.#filler, Buffer.alloc(bavail * bsize));
    } catch (error) {
      // Something else took the last of it.
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
    }
    return 'filled the disk';
  }

  async stopRegistry(): Promise<string> {
    await this.registry.stop();
    return 'stopped the registry';
  }

  async stopGit(): Promise<string> {
    await this.#running().git.stop();
    return 'stopped the git server';
  }

  /** What was taken from the agent is there again; it runs. */
  async restore(): Promise<void> {
    rmSync(this.#filler, { force: true });
    const { git, registry } = this.#running();
    await git.start();
    await registry.start();
    const { exitCode, isRunning } = this.agent;
    if (exitCode !== undefined && !this.#startedOnFullDisk)
      throw new Error(`the agent ended with ${exitCode}`);
    if (!isRunning) this.startAgent();
  }
}
