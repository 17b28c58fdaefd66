/** Drives the conformance cases in a Windows process. */

import { join } from 'node:path';
import type { DriverMessage, DriverRequest } from '../conformance/windows-driver.ts';
import { acceptChannel, type LineChannel } from './line-channel.ts';
import type { WindowsProcess, WindowsWorld } from './windows.ts';

const DRIVER = join(import.meta.dirname, '../conformance/windows-driver.ts');

export type Ready = Extract<DriverMessage, { kind: 'ready' }>;

/** One Windows process for all cases, and a new one after a case that ended it. */
export class ConformanceDriver {
  readonly #world: WindowsWorld;
  readonly #host: string;
  #process: WindowsProcess | undefined;
  #channel: LineChannel<DriverRequest, DriverMessage> | undefined;

  constructor(world: WindowsWorld, host: string) {
    this.#world = world;
    this.#host = host;
  }

  /** Starts the process, and says what it says of itself. */
  async start(): Promise<Ready> {
    this.#channel = await acceptChannel<DriverRequest, DriverMessage>(async (port) => {
      this.#process = await this.#world.start({ script: DRIVER, args: [String(port), this.#host] });
      return { ended: this.#process.result() };
    });
    const ready = await this.#channel.receive();
    if (ready?.kind !== 'ready') throw await this.#ended();
    return ready;
  }

  async run(name: string): Promise<void> {
    if (this.#channel === undefined) await this.start();
    this.#channel?.send({ run: name });
    const answer = await this.#channel?.receive();
    if (answer === undefined) throw await this.#ended();
    if (answer.kind === 'failed') throw new Error(`in the Windows process: ${answer.error}`);
  }

  async #ended(): Promise<Error> {
    this.#channel?.close();
    this.#channel = undefined;
    const { code, stdout, stderr } = (await this.#process?.result()) ?? {
      code: null,
      stdout: '',
      stderr: '',
    };
    return new Error(`the Windows process ended: exit ${code}\n${stdout}\n${stderr}`);
  }

  close(): void {
    this.#channel?.close();
  }
}
