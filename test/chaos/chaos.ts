/**
 * Chaos: an agent in a process of its own, and a driver that kills it at every transition of its machines in turn, then
 * rewrites manifests and history, kills it at random, unmounts behind its back, damages layer files, fills the disk, and
 * stops registry and git server. After each of these everything must come to what is declared, and nothing else be
 * left. A seed, which is printed, makes the same choices again.
 *
 * @example npm run chaos -- --rounds 50 --seed 7
 */

import { setTimeout as pause } from 'node:timers/promises';
import {
  type AppName,
  FOLDER_APPS,
  GIT_APPS,
  isGitApp,
  LINUX_APP,
  randomShape,
  type Shape,
  WRITABLE_APP,
} from './apps.ts';
import { checkInvariants, checkNothingHeld, checkNothingKept, findUnrest } from './check.ts';
import { Random } from './random.ts';
import { layersOf } from './servers.ts';
import { EFFECTS, type Transition } from './transitions.ts';
import { ChaosWorld } from './world.ts';

export interface ChaosOptions {
  /** Of effects of the host; those of the registry come first. */
  transitions: readonly Transition[];
  /** Random ones, after the transitions. */
  rounds: number;
  seed: number;
  say: (line: string) => void;
}

/** A round must have converged by then. */
const CONVERGENCE_MS = 90_000;
/** Never fewer are declared by the folder, so that no revision prunes more than the agent lets it. */
const FEWEST = 4;

/** What one app becomes in turn: on the way round every effect of the host is needed. */
const SHAPES: readonly Shape[] = [
  { format: 'BlockCIM', isVerified: false, version: 1, place: 'a' },
  { format: 'BlockCIM', isVerified: true, version: 2, place: 'a-moved' },
  { format: 'ForkedCIM', isVerified: false, version: 1, place: 'a' },
];

const WRITABLE: Shape = {
  format: 'ForkedCIM',
  isVerified: false,
  isWritable: true,
  version: 1,
  place: WRITABLE_APP,
};

/** Rejects with what did not hold, naming seed and round. Leaves nothing behind. */
export async function runChaos({ transitions, rounds, seed, say }: ChaosOptions): Promise<void> {
  const chaos = new Chaos(seed);
  const attempt = async (name: string, work: () => Promise<string>) => {
    const started = performance.now();
    try {
      const deeds = await work();
      say(`${name}: ${deeds}: all is well after ${Math.round(performance.now() - started)} ms`);
    } catch (error) {
      const { message } = error as Error;
      throw new Error(`${name} of seed ${seed}: ${message}\n${chaos.log}`, { cause: error });
    }
  };
  try {
    await attempt('start', () => chaos.begin());
    await attempt('image.resolving', () => chaos.dieAtRequest('g', EFFECTS['image.resolving']));
    await attempt('image.fetching', () => chaos.dieAtRequest('h', EFFECTS['image.fetching']));
    for (const { state, when } of transitions)
      await attempt(`${when} ${state}`, () => chaos.dieAt({ state, when }));
    for (let round = 1; round <= rounds; round++) await attempt(`round ${round}`, () => chaos.round());
    await attempt('end', () => chaos.takeDown());
  } finally {
    await chaos.end();
  }
}

class Chaos {
  readonly #random: Random;
  readonly #world = new ChaosWorld();
  #shape = 0;

  constructor(seed: number) {
    this.#random = new Random(seed);
  }

  /** What the agent said last. */
  get log(): string {
    return this.#world.agent.log;
  }

  async begin(): Promise<string> {
    const names = [...FOLDER_APPS.slice(0, FEWEST), ...GIT_APPS, LINUX_APP];
    // Both git apps start with their first version: what the second adds is fetched later.
    const shapes = names.map((name): [AppName, Shape] => {
      const shape = randomShape(name, this.#random);
      return [name, isGitApp(name) ? { ...shape, version: 1 } : shape];
    });
    await this.#world.begin(new Map(shapes));
    await this.#settle();
    return `declared ${names.join(', ')}`;
  }

  async takeDown(): Promise<string> {
    await this.#world.agent.kill();
    await this.#world.collectGarbage();
    await checkInvariants(this.#world);
    checkNothingKept(this.#world);
    await checkNothingHeld(this.#world);
    return 'killed the agent, collected garbage, and unmounted everything';
  }

  async end(): Promise<void> {
    await this.#world.end();
  }

  /** Has the app need its second version, and kills the agent while it asks the registry for what that takes. */
  async dieAtRequest(name: 'g' | 'h', wanted: 'manifest' | 'layer'): Promise<string> {
    const { agent, apps, images, registry } = this.#world;
    const layers = layersOf(`${images}/${name}2`);
    const died = new Promise<void>((resolve, reject) => {
      registry.onRequest(({ kind, path }) => {
        const isLayer = kind === 'blob' && layers.some((digest) => path.includes(digest));
        if (wanted !== (isLayer ? 'layer' : kind)) return;
        registry.onRequest(undefined);
        agent.kill().then(resolve, reject);
      });
    });
    const shape = apps.get(name);
    if (shape === undefined) throw new Error(`${name} is always declared`);
    this.#world.declare(name, { ...shape, version: 2 });
    await within(died, `the ${wanted} of ${name} was never asked for`);
    await this.#settle();
    return `killed while the registry was asked for a ${wanted}`;
  }

  async dieAt({ state, when }: Transition): Promise<string> {
    const { agent } = this.#world;
    const turns = await this.#turnsTo(state);
    agent.doom(`${when} ${EFFECTS[state]}`);
    let declared = '';
    for (const turn of turns) {
      if (!agent.isRunning) break;
      declared = turn();
      await this.#converge();
    }
    if (agent.isRunning) throw new Error(`it never came ${when} ${state}`);
    agent.spare();
    await this.#settle();
    return `killed on the way to ${declared}`;
  }

  /** What to declare one after the other until the agent has been in this state; each says what it declares. */
  async #turnsTo(state: Transition['state']): Promise<(() => string)[]> {
    if (state !== 'mount.preparing' && state !== 'mount.removing')
      return SHAPES.map(() => () => {
        const shape = SHAPES[this.#shape++ % SHAPES.length];
        this.#world.declare('a', shape);
        return `${shape?.format} ${shape?.version}`;
      });
    const declareWritable = (isWanted: boolean) => {
      this.#world.declare(WRITABLE_APP, isWanted ? WRITABLE : undefined);
      return isWanted ? 'a writable mount' : 'none';
    };
    const isWanted = state === 'mount.preparing';
    declareWritable(!isWanted);
    await this.#settle();
    return [() => declareWritable(isWanted)];
  }

  async round(): Promise<string> {
    const deeds: string[] = [];
    for (let count = 1 + this.#random.below(5); count > 0; count--) {
      deeds.push(await this.#disturb());
      await pause(this.#random.below(400));
    }
    await this.#settle();
    return deeds.join(', ');
  }

  async #disturb(): Promise<string> {
    const world = this.#world;
    const deeds: (() => string | Promise<string>)[] = [
      () => this.#redeclare(),
      () => this.#redeclare(),
      () => this.#redeclare(),
      () => this.#killOrStart(),
      () => this.#killOrStart(),
      () => world.unmount(this.#random),
      () => world.damage('delete', this.#random),
      () => world.damage('truncate', this.#random),
      () => world.fillDisk(),
      () => world.stopRegistry(),
      () => world.stopGit(),
    ];
    return (await this.#random.pick(deeds)?.()) ?? 'nothing';
  }

  #redeclare(): string {
    const { apps } = this.#world;
    const name = this.#random.pick([...FOLDER_APPS, ...GIT_APPS, LINUX_APP]) ?? 'a';
    const inFolder = FOLDER_APPS.filter((each) => apps.has(each)).length;
    if (
      !isGitApp(name) &&
      name !== LINUX_APP &&
      apps.has(name) &&
      inFolder > FEWEST &&
      this.#random.below(2) === 0
    ) {
      this.#world.declare(name, undefined);
      return `removed ${name}`;
    }
    const shape = randomShape(name, this.#random);
    const history = this.#random.below(2) === 0 ? 'rewritten' : 'continued';
    this.#world.declare(name, shape, history);
    const how = isGitApp(name) ? ` in a history ${history}` : '';
    return `declared ${name} as ${shape.format}${shape.isVerified ? ' verified' : ''} ${shape.version} at ${shape.place}${how}`;
  }

  async #killOrStart(): Promise<string> {
    const { agent } = this.#world;
    if (agent.isRunning) {
      await agent.kill();
      return 'killed the agent';
    }
    this.#world.startAgent();
    return 'started the agent';
  }

  async #settle(): Promise<void> {
    await this.#world.restore();
    await this.#converge();
    if (!this.#world.agent.isRunning) throw new Error('the agent ended');
    await checkInvariants(this.#world);
  }

  /** Until there is no unrest any more, or no agent. */
  async #converge(): Promise<void> {
    const deadline = AbortSignal.timeout(CONVERGENCE_MS);
    let unrest: string | undefined = 'the agent never answered';
    while (!deadline.aborted && this.#world.agent.isRunning) {
      unrest = await findUnrest(this.#world, deadline);
      if (unrest === undefined) return;
      await pause(100);
    }
    if (deadline.aborted) throw new Error(`not converged: ${unrest}`);
  }
}

async function within(promise: Promise<void>, otherwise: string): Promise<void> {
  const deadline = new AbortController();
  const late = pause(CONVERGENCE_MS, undefined, deadline).then(() => {
    throw new Error(otherwise);
  });
  try {
    await Promise.race([promise, late]);
  } finally {
    deadline.abort();
    await late.catch(() => undefined);
  }
}
