/**
 * Ends the use of CimFS on a machine that it crashes. cimfs.sys has taken hosts down while many layers were pulled
 * (microsoft/hcsshim and containerd issues: bug checks 0x44, 0x1CA); an agent that starts again and goes on would keep
 * such a host from ever staying up. So it is on disk whether CimFS is at work, and what boots ended meanwhile.
 */

import { rm } from 'node:fs/promises';
import { uptime } from 'node:os';
import { dirname } from 'node:path';
import { describeError } from '../../errors.ts';
import { ensureDirectory } from '../directories.ts';
import type { CapabilityState } from '../host.ts';
import { readRecord, writeRecord } from '../record-file.ts';

const CRASHES_THAT_STOP = 3;
const WITHIN_MS = 24 * 60 * 60 * 1000;
/** Boot times are computed from the clock, which may be set meanwhile. */
const SAME_BOOT_MS = 5 * 60 * 1000;

interface WorkRecord {
  formatVersion: 1;
  /** When the machine started that did the work, in milliseconds since 1970. */
  boot: number;
  atWork: boolean;
  /** Boots that ended while CimFS was at work. */
  crashedBoots: number[];
}

export class CimfsGuard {
  readonly #file: string;
  readonly #boot: number;
  readonly #warn: (message: string) => void;
  #tasks = 0;
  /** The record is written by one at a time, in the order in which work begins and ends. */
  #writing: Promise<void> = Promise.resolve();

  /** `boot`: when this machine started. `warn` is told of what could not be noted, and need not be. */
  constructor(
    file: string,
    boot: number = Date.now() - uptime() * 1000,
    warn: (message: string) => void = () => undefined,
  ) {
    this.#file = file;
    this.#boot = boot;
    this.#warn = warn;
  }

  /** Why CimFS isn't used any more; undefined while it is. */
  async refusal(): Promise<CapabilityState | undefined> {
    const crashes = this.#crashes(await this.#read());
    if (crashes.length < CRASHES_THAT_STOP) return undefined;
    return {
      available: false,
      reason: `this machine went down ${crashes.length} times within a day while CimFS was at work`,
      hint: `update Windows, then delete ${this.#file}`,
    };
  }

  /** Runs a task that makes CimFS work. It isn't begun when that can't be noted. */
  async during<T>(task: () => Promise<T>): Promise<T> {
    return this.#noted(() => this.#note(), task);
  }

  /** Runs a task that ends what CimFS does, which no disk that is full or read-only may keep going. */
  async duringEnd<T>(task: () => Promise<T>): Promise<T> {
    return this.#noted(() => this.#tryNote(), task);
  }

  /** Forgets the work of a process that was killed: the machine itself stayed up. */
  async settle(): Promise<void> {
    if ((await this.#read()) !== undefined) await this.#note();
  }

  async #noted<T>(note: () => Promise<void>, task: () => Promise<T>): Promise<T> {
    this.#tasks += 1;
    try {
      await note();
      return await task();
    } finally {
      this.#tasks -= 1;
      await this.#tryNote();
    }
  }

  async #tryNote(): Promise<void> {
    try {
      await this.#note();
    } catch (error) {
      this.#warn(`note when CimFS is at work: ${describeError(error)}`);
    }
  }

  async #note(): Promise<void> {
    this.#writing = this.#writing.then(
      () => this.#write(),
      () => this.#write(),
    );
    await this.#writing;
  }

  async #write(): Promise<void> {
    const record = await this.#read();
    const crashedBoots = this.#crashes(record);
    const atWork = this.#tasks > 0;
    if (!atWork && crashedBoots.length === 0) {
      await rm(this.#file, { force: true });
      return;
    }
    if (record?.atWork === atWork && record.boot === this.#boot) return;
    await ensureDirectory(dirname(this.#file));
    const next: WorkRecord = { formatVersion: 1, boot: this.#boot, atWork, crashedBoots };
    await writeRecord(this.#file, next);
  }

  #crashes(record: WorkRecord | undefined): number[] {
    if (record === undefined) return [];
    const ended = record.atWork && Math.abs(record.boot - this.#boot) > SAME_BOOT_MS;
    const crashes = ended ? [...record.crashedBoots, record.boot] : record.crashedBoots;
    return crashes.filter((boot) => this.#boot - boot < WITHIN_MS);
  }

  async #read(): Promise<WorkRecord | undefined> {
    return readRecord<WorkRecord>(
      this.#file,
      ({ boot, atWork, crashedBoots }) =>
        typeof boot === 'number' && typeof atWork === 'boolean' && Array.isArray(crashedBoots),
    );
  }
}
