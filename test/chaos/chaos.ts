/**
 * Chaos: an agent in a process of its own, and a driver that rewrites manifests, kills it, unmounts behind its back and
 * damages layer files. After each round everything must come to what is declared, and nothing else be left. A seed,
 * which is printed, makes the same choices again.
 *
 * @example npm run chaos -- --rounds 50 --seed 7
 */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { connectAgent } from '../../src/cli/agent-client.ts';
import { isErrorCode } from '../../src/errors.ts';
import { createEmbeddedHost } from '../../src/hosts/embedded/embedded-host.ts';
import type { Plan } from '../../src/reconciler/types.ts';
import { agentSocket } from '../../src/server/address.ts';
import { openState } from '../../src/state/state.ts';
import { mountsBelow, unmountBelow } from '../support/mounts.ts';
import { COMPILE_CACHE, MAIN } from '../support/program.ts';
import { APPS, type AppName, contentOf, declare, randomShape, type Shape, writeImages } from './apps.ts';
import { Random } from './random.ts';

export interface ChaosOptions {
  rounds: number;
  seed: number;
  say: (line: string) => void;
}

/** A round must have converged by then. */
const CONVERGENCE_MS = 90_000;
/** Never fewer are declared, so that no revision prunes more than the agent lets it. */
const FEWEST = 4;

/** Rejects with what did not hold, naming round and seed. Leaves nothing behind. */
export async function runChaos({ rounds, seed, say }: ChaosOptions): Promise<void> {
  const chaos = new Chaos(seed, say);
  try {
    await chaos.begin();
    for (let round = 1; round <= rounds; round++) {
      try {
        await chaos.round(round);
      } catch (error) {
        throw new Error(`round ${round} of seed ${seed}: ${(error as Error).message}\n${chaos.log()}`, {
          cause: error,
        });
      }
    }
  } finally {
    await chaos.end();
  }
}

class Chaos {
  readonly #random: Random;
  readonly #say: (line: string) => void;
  readonly #directory = mkdtempSync(join(tmpdir(), 'cimlet-chaos-'));
  readonly #root = join(this.#directory, 'root');
  readonly #views = join(this.#directory, 'views');
  readonly #manifests = join(this.#directory, 'manifests');
  readonly #config = join(this.#directory, 'cimlet.yaml');
  readonly #apps = new Map<AppName, Shape>();
  #agent: ChildProcess | undefined;
  #lines: string[] = [];

  constructor(seed: number, say: (line: string) => void) {
    this.#random = new Random(seed);
    this.#say = say;
  }

  async begin(): Promise<void> {
    await writeImages(join(this.#directory, 'images'));
    writeFileSync(
      this.#config,
      'root: root\nsources: [{name: chaos, folder: {path: manifests}}]\nintervals: {resync: 300ms}\n',
    );
    for (const name of APPS.slice(0, FEWEST)) this.#apps.set(name, randomShape(name, this.#random));
    declare(this.#manifests, this.#views, this.#apps);
    this.#start();
  }

  async end(): Promise<void> {
    await this.#kill();
    unmountBelow(this.#directory);
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** What the agent said last. */
  log(): string {
    return this.#lines.slice(-40).join('\n');
  }

  async round(round: number): Promise<void> {
    const deeds: string[] = [];
    for (let count = 1 + this.#random.below(4); count > 0; count--) {
      deeds.push(await this.#disturb());
      await pause(this.#random.below(400));
    }
    if (this.#agent === undefined) this.#start();
    const started = performance.now();
    await this.#converge();
    await this.#check();
    this.#say(
      `round ${round}: ${deeds.join(', ')}: converged in ${Math.round(performance.now() - started)} ms`,
    );
  }

  async #disturb(): Promise<string> {
    const deeds = [
      () => this.#redeclare(),
      () => this.#redeclare(),
      () => this.#killAgent(),
      () => this.#unmount(),
      () => this.#damage('delete'),
      () => this.#damage('truncate'),
    ];
    return (await this.#random.pick(deeds)?.()) ?? 'nothing';
  }

  #redeclare(): string {
    const name = this.#random.pick(APPS) ?? 'a';
    if (this.#apps.has(name) && this.#apps.size > FEWEST && this.#random.below(2) === 0) {
      this.#apps.delete(name);
      declare(this.#manifests, this.#views, this.#apps);
      return `removed ${name}`;
    }
    const shape = randomShape(name, this.#random);
    this.#apps.set(name, shape);
    declare(this.#manifests, this.#views, this.#apps);
    return `declared ${name} as ${shape.format}${shape.isVerified ? ' verified' : ''} ${shape.version} at ${shape.place}`;
  }

  async #killAgent(): Promise<string> {
    if (this.#agent === undefined) {
      this.#start();
      return 'started the agent';
    }
    await this.#kill();
    return 'killed the agent';
  }

  #unmount(): string {
    const point = existsSync(this.#views) ? this.#random.pick(mountsBelow(this.#views)) : undefined;
    if (point === undefined) return 'found nothing mounted';
    try {
      execFileSync('umount', [point], { stdio: 'ignore' });
    } catch {
      return `could not unmount ${point.slice(this.#views.length)}`;
    }
    return `unmounted ${point.slice(this.#views.length)}`;
  }

  #damage(how: 'delete' | 'truncate'): string {
    const files = ['cim-layers', 'snapshots']
      .map((folder) => join(this.#root, folder))
      .filter((folder) => existsSync(folder))
      .flatMap((folder) =>
        readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name)),
      )
      .filter((file) => statSync(file, { throwIfNoEntry: false })?.isFile() === true);
    const file = this.#random.pick(files);
    if (file === undefined) return 'found no layer file';
    try {
      if (how === 'delete') rmSync(file);
      else truncateSync(file, Math.floor(statSync(file).size / 2));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
    return `${how}d ${file.slice(this.#root.length + 1).replaceAll(/[0-9a-f]{58}(?=[0-9a-f]{6})/g, '…')}`;
  }

  #start(): void {
    const child = spawn(process.execPath, [MAIN, 'agent', '--config', this.#config], {
      env: { ...process.env, NODE_COMPILE_CACHE: COMPILE_CACHE },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        this.#lines.push(...chunk.toString().trimEnd().split('\n'));
        this.#lines = this.#lines.slice(-200);
      });
    }
    this.#agent = child;
  }

  async #kill(): Promise<void> {
    const child = this.#agent;
    this.#agent = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'close');
    child.kill('SIGKILL');
    await ended;
  }

  /** Until the agent itself sees nothing to do any more in the manifests of now. */
  async #converge(): Promise<void> {
    const deadline = AbortSignal.timeout(CONVERGENCE_MS);
    let last = 'the agent never answered';
    while (!deadline.aborted) {
      if (this.#agent?.exitCode != null) throw new Error(`the agent ended with ${this.#agent.exitCode}`);
      const state = await this.#outlook(deadline);
      if (state === undefined) return;
      last = state;
      await pause(50);
    }
    throw new Error(`not converged: ${last}`);
  }

  /** Undefined when all is as declared; otherwise what isn't. */
  async #outlook(signal: AbortSignal): Promise<string | undefined> {
    try {
      const client = await connectAgent(agentSocket(this.#root));
      if (client === undefined) return 'the agent does not listen yet';
      const plan = (await client.get('/api/v1/plan', signal)) as Plan;
      const [action] = plan.actions;
      if (action !== undefined)
        return `still to do: ${plan.actions.map(({ verb, id }) => `${verb} ${id}`).join(', ')}`;
      const leftover = plan.notes.find(({ message }) => message.includes('leftover'));
      if (leftover !== undefined) return leftover.message;
      const [blocked] = plan.blocked;
      if (blocked !== undefined) return `${blocked.key} is blocked: ${blocked.message}`;
      const records = this.#records().filter(({ kind }) => kind === 'Mount');
      const declared = [...this.#apps].map(([name, { place }]) => `${name} ${join(this.#views, place)} True`);
      const there = records.map(
        ({ name, facts, conditions }) => `${name} ${facts.mount?.path} ${conditions[0]?.status}`,
      );
      const isSame = JSON.stringify(declared.sort()) === JSON.stringify(there.sort());
      return isSame ? undefined : `declared ${declared.join(', ')}; recorded ${there.join(', ')}`;
    } catch (error) {
      if (isErrorCode(error, 'unavailable', 'busy', 'failed-precondition', 'corrupt', 'cancelled'))
        return error.message;
      throw error;
    }
  }

  #records() {
    const state = openState(this.#root, { readOnly: true });
    try {
      return state.records().resources;
    } finally {
      state.close();
    }
  }

  /** What must hold after every round. */
  async #check(): Promise<void> {
    const mounted = mountsBelow(this.#views).sort();
    const declared = [...this.#apps.values()].map(({ place }) => join(this.#views, place)).sort();
    expectSame('mount points', mounted, declared);
    for (const [name, shape] of this.#apps) {
      const point = join(this.#views, shape.place);
      const files = readdirSync(point, { recursive: true, encoding: 'utf8' }).filter((file) =>
        statSync(join(point, file)).isFile(),
      );
      const found = files
        .sort()
        .map((file) => `${file}=${readFileSync(join(point, file), 'utf8').slice(0, 40)}`);
      const wanted = [...contentOf(name, shape)].sort().map(([file, text]) => `${file}=${text.slice(0, 40)}`);
      expectSame(`files of ${name}`, found, wanted);
    }
    const kinds = ['Image', 'LayerChain', 'Mount'];
    expectSame(
      'inventory',
      this.#records()
        .map(({ kind, name }) => `${kind}/${name}`)
        .sort(),
      [...this.#apps.keys()].flatMap((name) => kinds.map((kind) => `${kind}/${name}`)).sort(),
    );
    const observed = await createEmbeddedHost({ root: this.#root }).observe({
      signal: new AbortController().signal,
    });
    expectSame(
      'leftovers',
      observed.leftovers.map(({ path }) => path),
      [],
    );
    expectSame(
      'faults',
      observed.layers.flatMap(({ faults }) => faults.map(({ message }) => message)),
      [],
    );
    const needed = new Set(
      this.#records().flatMap(
        ({ facts: { chain } }) => chain?.chainIds.map((id) => `${chain.format} ${id}`) ?? [],
      ),
    );
    const there = observed.layers.map(({ format, chainId }) => `${format} ${chainId}`);
    expectSame('layers', there.sort(), [...needed].sort());
    const loops = execFileSync('losetup', ['-a'], { encoding: 'utf8' });
    const own = loops
      .split('\n')
      .filter((line) => line.includes(this.#directory) && line.includes('(deleted)'));
    expectSame('loop devices of deleted files', own, []);
  }
}

function expectSame(what: string, found: readonly string[], wanted: readonly string[]): void {
  if (JSON.stringify(found) === JSON.stringify(wanted)) return;
  throw new Error(`${what}: found ${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`);
}
