/**
 * Has calls that effects of the Windows host make fail, and be the last of a process. One is asked for an effect on each root
 * until a call of each doesn't return; then it is killed, and the next one finishes all of them before it dies in others. What
 * is there then must be what is there after a run that nothing disturbed.
 */

import { deepStrictEqual } from 'node:assert';
import { join } from 'node:path';
import { acceptChannel, type LineChannel } from '../../support/line-channel.ts';
import type { WindowsProcess, WindowsWorld } from '../../support/windows.ts';
import type { Answer, Ask, Called, Stage } from './doomed.ts';
import type { Family } from './effect.ts';
import type { Choice, Known, Strike } from './strikes.ts';

const SCRIPT = join(import.meta.dirname, 'doomed.ts');
const ENVIRONMENT = {
  // A thread for every call that doesn't return.
  UV_THREADPOOL_SIZE: '256',
  // Of what cimlet does there without Windows, these are the steps.
  CIMLET_DOUBLES_RENAMES: 'C:\\roots\\LCOW\\',
};
/** They look, or can't fail: all is as it was before. */
const LOOKING =
  /^(CimCloseImage|GetLayerMountPath|NameToGuid|BfGetMappings|ORCloseHive)$|^(Find|GetVolume)|^Hcs(?!Modify).*(Operation|ComputeSystem)/;

interface Planned {
  stage: Stage;
  strike: Strike;
}

/** What was done, as text, and what Windows was called meanwhile that may leave something; until it failed where it did. */
export type Met = Map<string, string[]>;

/** Throws what all did not come through. */
export async function strike(
  world: WindowsWorld,
  choice: Choice,
  say: (line: string) => void = () => undefined,
): Promise<Met> {
  const striking = new Striking(world, say);
  try {
    return await striking.run(choice);
  } finally {
    striking.close();
  }
}

class Striking {
  readonly #world: WindowsWorld;
  readonly #say: (line: string) => void;
  #process: Doomed | undefined;
  /** Of everybody else, before. */
  #foreign: string[] = [];
  /** What is there after each effect. */
  readonly #facts = new Map<Stage, string[]>();
  readonly #met: Met = new Map();
  readonly #faults: string[] = [];

  constructor(world: WindowsWorld, say: (line: string) => void) {
    this.#world = world;
    this.#say = say;
  }

  async run(choice: Choice): Promise<Met> {
    const first = await (await this.#alive()).ask({ do: 'prepare the world' });
    this.#foreign = first.foreign;
    const fresh = await this.#emptied(first.stages);
    const effects: Known[] = [];
    for (const stage of first.stages) effects.push(await this.#learn(stage));
    const kills = new Map<Family, Planned[]>();
    const failures: Planned[] = [];
    for (const [stage, strikes] of choice(effects))
      for (const strike of strikes) {
        const { family } = stage;
        if (strike.with === 'failure') failures.push({ stage, strike });
        else kills.set(family, [...(kills.get(family) ?? []), { stage, strike }]);
      }
    const count = [...kills.values()].flat().length;
    this.#say(`${effects.length} effects, ${failures.length} failures, ${count} kills`);
    for (const { stage, strike } of failures) await this.#fail(stage, strike);
    while ([...kills.values()].some((left) => left.length > 0))
      await this.#die([...kills.values()].flatMap((left) => left.splice(0, 1)));
    const rest = await this.#emptied(effects);
    const { volumes } = await (await this.#alive()).ask({ do: 'look' });
    this.#say(`${this.#faults.length} of them left something else than they should`);
    deepStrictEqual(this.#faults, []);
    deepStrictEqual(volumes, first.volumes, 'volumes are left');
    deepStrictEqual(rest, fresh, 'something is left in a root');
    return this.#met;
  }

  close(): void {
    this.#process?.close();
  }

  /** What is in each root when all is taken away. */
  async #emptied(stages: readonly Stage[]): Promise<string[][]> {
    const process = await this.#alive();
    const roots = new Map(stages.map((stage) => [stage.family, stage]));
    const found: string[][] = [];
    for (const stage of roots.values()) found.push((await process.ask({ do: 'empty', stage })).facts);
    return found;
  }

  async #learn(stage: Stage): Promise<Known> {
    const process = await this.#alive();
    const { facts, calls } = await process.ask({ do: 'learn', stage });
    this.#met.set(stage.effect, namesOf(calls));
    const known = { ...stage, calls: effectfulCalls(calls) };
    this.#facts.set(known, facts);
    return known;
  }

  async #fail(stage: Stage, strike: Strike): Promise<void> {
    const process = await this.#alive();
    await this.#check(stage, nameOf(stage, strike), () =>
      process.ask({ do: 'fail', stage, call: strike.call, nth: strike.nth }),
    );
  }

  async #die(batch: readonly Planned[]): Promise<void> {
    const dying = await this.#alive();
    for (const { stage, strike } of batch)
      await this.#noting(`on the way to ${nameOf(stage, strike)}`, () => dying.dieIn(stage, strike));
    // Wine's server ends with the last of its processes, and would refuse one that comes just then.
    const next = await Doomed.start(this.#world);
    this.#process = next;
    await dying.kill();
    for (const { stage, strike } of batch)
      await this.#check(stage, nameOf(stage, strike), () => next.ask({ do: 'recover', stage }));
  }

  async #check(stage: Stage, what: string, ask: () => Promise<Answer>): Promise<void> {
    this.#say(what);
    this.#met.set(what, []);
    await this.#noting(what, async () => {
      const { facts, foreign, calls } = await ask();
      this.#met.set(what, namesOf(calls));
      deepStrictEqual(facts, this.#facts.get(stage), 'something else is there');
      deepStrictEqual(foreign, this.#foreign, 'something of others was changed');
    });
  }

  /** What isn't as it should be is told in the end, with all else. */
  async #noting(what: string, task: () => Promise<void>): Promise<void> {
    try {
      await task();
    } catch (error) {
      this.#faults.push(`${what}: ${(error as Error).message}`);
      this.#say(this.#faults.at(-1) ?? '');
    }
  }

  async #alive(): Promise<Doomed> {
    this.#process ??= await Doomed.start(this.#world);
    return this.#process;
  }
}

/** The process that lives at the moment. */
class Doomed {
  readonly #world: WindowsWorld;
  readonly #process: WindowsProcess;
  readonly #channel: LineChannel<Ask, Answer>;
  /** It answers in order; what an effect that dies would answer is waited for as well. */
  #next: Promise<Answer | undefined> | undefined;

  private constructor(world: WindowsWorld, process: WindowsProcess, channel: LineChannel<Ask, Answer>) {
    this.#world = world;
    this.#process = process;
    this.#channel = channel;
  }

  static async start(world: WindowsWorld): Promise<Doomed> {
    let started: WindowsProcess | undefined;
    const channel = await acceptChannel<Ask, Answer>(async (port) => {
      started = await world.start({ script: SCRIPT, args: [String(port)], env: ENVIRONMENT });
      return { ended: started.result() };
    });
    return new Doomed(world, started as WindowsProcess, channel);
  }

  async ask(ask: Ask): Promise<Answer> {
    await this.#world.forgetCalls();
    this.#channel.send(ask);
    return this.#receive();
  }

  /** Returns when the call doesn't. */
  async dieIn(stage: Stage, { call, nth, with: how }: Strike): Promise<void> {
    await this.#world.forgetCalls();
    const fault = `${call} ${nth} ${how === 'kill before' ? 'hang' : 'hang-after'} 0\n`;
    this.#channel.send({ do: 'die', stage, fault });
    const hangs = this.#world.untilCall((made) => made.fault?.startsWith('hangs') === true);
    await Promise.race([hangs, this.#receive()]);
  }

  async kill(): Promise<void> {
    this.#channel.close();
    await this.#process.kill();
  }

  close(): void {
    this.#channel.close();
  }

  async #receive(): Promise<Answer> {
    this.#next ??= this.#channel.receive();
    const answer = await this.#next;
    this.#next = undefined;
    if (answer?.error !== undefined) throw new Error(answer.error);
    if (answer !== undefined) return answer;
    throw new Error(`the Windows process ended: ${JSON.stringify(await this.#process.result())}`);
  }
}

function nameOf({ effect }: Stage, { call, nth, with: how }: Strike): string {
  return `${how} ${call} ${nth} in ${effect}`;
}

function effectfulCalls(calls: readonly Called[]): Known['calls'] {
  const counts = new Map<string, number>();
  const numbered = calls.map((each) => {
    const nth = (counts.get(each.call) ?? 0) + 1;
    counts.set(each.call, nth);
    return { ...each, nth };
  });
  return numbered.filter(({ call, result }) => result === '0x00000000' && !LOOKING.test(call));
}

function namesOf(calls: readonly Called[]): string[] {
  return calls.map(({ call }) => call).filter((call) => !LOOKING.test(call));
}
