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
import type { Family } from './effects.ts';

const SCRIPT = join(import.meta.dirname, 'doomed.ts');
/** A thread for every call that doesn't return. */
const ENVIRONMENT = { UV_THREADPOOL_SIZE: '256' };
/** They look, or can't fail: all is as it was before. */
const LOOKING =
  /^(CimCloseImage|CimGetVerificationInformation|GetLayerMountPath|NameToGuid|BfGetMappings|ORCloseHive)$|^(Find|GetVolume)|^Hcs(?!Modify).*(Operation|ComputeSystem)/;

/** A call of an effect, and what becomes of it. */
export interface Strike {
  call: string;
  /** Which of the effect's calls of that function. */
  nth: number;
  /** It fails, or the process is killed in it. */
  with: 'failure' | 'kill before' | 'kill after';
}

export interface Known extends Stage {
  /** What it calls that may leave something, in order. */
  calls: (Called & { nth: number })[];
}

/** Says how the calls of effects are struck. */
export type Choice = (effects: readonly Known[]) => Map<Known, Strike[]>;

/**
 * Of each function in each kind of effect, whatever the format, the last call is a process's last. Formats take turns, since a
 * process dies on each one's root at once.
 */
export const eachFunction: Choice = (effects) => {
  const choice = new Map(effects.map((effect): [Known, Strike[]] => [effect, []]));
  const burden = new Map<Family, number>();
  const burdenOf = ({ effect }: { effect: Known }) => burden.get(effect.family) ?? 0;
  const candidates = Map.groupBy(
    effects.flatMap((effect) =>
      [...new Set(effect.calls.map(({ call }) => call))].map((call) => ({ effect, call })),
    ),
    ({ effect: { family, effect }, call }) => `${effect.slice(0, -family.length)}${call}`,
  );
  for (const same of [...candidates.values()].sort((a, b) => a.length - b.length)) {
    const [chosen] = same.sort((a, b) => burdenOf(a) - burdenOf(b));
    if (chosen === undefined) continue;
    const { effect, call } = chosen;
    const [, last] = endsOf(effect.calls, call);
    choice.get(effect)?.push({ call, nth: last, with: 'kill after' });
    burden.set(effect.family, burdenOf(chosen) + 1);
  }
  return choice;
};

/** Every single one fails, and is the last; processes are killed before the first of each function, too. */
export const eachCall: Choice = (effects) =>
  new Map(
    effects.map((effect): [Known, Strike[]] => {
      const strikes = effect.calls.flatMap(({ call, nth }): Strike[] => {
        const [first] = endsOf(effect.calls, call);
        const before: Strike[] = nth === first ? [{ call, nth, with: 'kill before' }] : [];
        return [...failure(effect.family, call, nth), ...before, { call, nth, with: 'kill after' }];
      });
      return [effect, strikes];
    }),
  );

/**
 * Windows detaches a disk with its handle as well, the double doesn't; and what a VM refuses it is given otherwise: each change failing is
 * in vm-attachments.test.ts.
 */
function failure(family: Family, call: string, nth: number): Strike[] {
  return family === 'LCOW' || call === 'DetachVirtualDisk' ? [] : [{ call, nth, with: 'failure' }];
}

function endsOf(calls: Known['calls'], call: string): [first: number, last: number] {
  const nths = calls.filter((each) => each.call === call).map(({ nth }) => nth);
  return [nths[0] ?? 0, nths.at(-1) ?? 0];
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
    const effects: Known[] = [];
    for (const stage of first.stages) effects.push(await this.#learn(stage));
    const kills = new Map<Family, { stage: Stage; kill: Strike }[]>();
    for (const [stage, strikes] of choice(effects)) {
      for (const each of strikes.filter((one) => one.with === 'failure')) await this.#fail(stage, each);
      const own = strikes.filter((one) => one.with !== 'failure').map((kill) => ({ stage, kill }));
      kills.set(stage.family, [...(kills.get(stage.family) ?? []), ...own]);
    }
    while ([...kills.values()].some((left) => left.length > 0))
      await this.#die([...kills.values()].flatMap((left) => left.splice(0, 1)));
    const process = await this.#alive();
    for (const stage of effects) await process.ask({ do: 'empty', stage });
    const { volumes } = await process.ask({ do: 'look' });
    deepStrictEqual(this.#faults, []);
    deepStrictEqual(volumes, first.volumes, 'volumes are left');
    return this.#met;
  }

  close(): void {
    this.#process?.close();
  }

  async #learn(stage: Stage): Promise<Known> {
    const process = await this.#alive();
    const { facts, calls } = await process.ask({ do: 'learn', stage });
    this.#met.set(stage.effect, namesOf(calls));
    const known = { ...stage, calls: effectfulCalls(calls) };
    this.#facts.set(known, facts);
    return known;
  }

  async #fail(stage: Stage, { call, nth }: Strike): Promise<void> {
    const process = await this.#alive();
    const failed = process.ask({ do: 'fail', stage, call, nth });
    await this.#check(stage, `failure of ${call} ${nth} in ${stage.effect}`, failed);
  }

  async #die(batch: readonly { stage: Stage; kill: Strike }[]): Promise<void> {
    const dying = await this.#alive();
    for (const { stage, kill } of batch) await dying.dieIn(stage, kill);
    // Wine's server ends with the last of its processes, and would refuse one that comes just then.
    const next = await Doomed.start(this.#world);
    this.#process = next;
    await dying.kill();
    for (const { stage, kill } of batch) {
      const what = `${kill.with} ${kill.call} ${kill.nth} in ${stage.effect}`;
      await this.#check(stage, what, next.ask({ do: 'recover', stage }));
    }
  }

  /** One that all does not come through is told in the end, with the others. */
  async #check(stage: Stage, what: string, answer: Promise<Answer>): Promise<void> {
    this.#say(what);
    this.#met.set(what, []);
    try {
      const { facts, foreign, calls } = await answer;
      this.#met.set(what, namesOf(calls));
      deepStrictEqual(facts, this.#facts.get(stage), 'something else is there');
      deepStrictEqual(foreign, this.#foreign, 'something of others was changed');
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
