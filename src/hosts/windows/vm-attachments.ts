/**
 * Views in a running utility VM. The record says what the VM is given, before it is, and how far that has come; so a view
 * is found and taken away by whoever comes after a crash. HCS tells of no VM what it has: what was begun is taken for done.
 * Guests are reached through HCS, which is possible where HCS holds the connection to the guest; a VM that a containerd
 * shim made is connected to that shim alone.
 */

import { CimletError, isErrorCode } from '../../errors.ts';
import type { ComputeCore, ComputeSystemHandle } from '../../native/windows/computecore.ts';
import type { VmCompute } from '../../native/windows/vmcompute.ts';
import type { LayerFormat, ObservedMount } from '../host.ts';
import type { KeyedLock } from '../keyed-lock.ts';
import type { Layout } from '../layout.ts';
import { type MountRecord, readMountRecords, writeMountRecord } from '../mount-records.ts';
import { afterFailure } from './acquire.ts';
import { type ComputeSystem, findComputeSystem } from './compute-systems.ts';
import type { Change } from './hcs-documents.ts';
import { planVmView, VmPlaces, type VmView } from './vm-plan.ts';

/** What a VM has of a view. */
export interface Attachment {
  vm: string;
  /** Of the run of the VM that has it: one that started again has nothing. */
  runtimeId?: string | undefined;
  changes: Change[];
  /** So many are made; the next one may be. */
  done: number;
}

export interface AttachedRecord extends MountRecord {
  attachment?: Attachment | undefined;
}

export interface VmCalls {
  computecore: ComputeCore;
  vmcompute: Pick<VmCompute, 'grantVmAccess'>;
}

export class VmAttachments {
  readonly #calls: VmCalls;
  readonly #layout: Layout;
  readonly #locks: KeyedLock;

  constructor(calls: VmCalls, layout: Layout, locks: KeyedLock) {
    this.#calls = calls;
    this.#layout = layout;
    this.#locks = locks;
  }

  /** Throws `failed-precondition` unless it runs, its guest suits the format, and HCS reaches the guest. */
  async require(id: string, format: LayerFormat, operation: string): Promise<ComputeSystem> {
    const refuse = (why: string, hint?: string) =>
      new CimletError('failed-precondition', `${operation}: utility VM ${id} ${why}`, { hint });
    const vm = await findComputeSystem(this.#calls.computecore, id);
    if (vm === undefined) throw refuse('does not run');
    if (vm.type !== 'VirtualMachine') throw refuse(`is no virtual machine but a ${vm.type}`);
    const guest = format === 'LCOW' ? 'Linux' : 'Windows';
    if (vm.guestOs !== undefined && vm.guestOs !== guest) throw refuse(`runs ${vm.guestOs}, not ${guest}`);
    if (await this.#reachesGuest(id)) return vm;
    const whose = vm.owner === undefined ? 'who made it' : vm.owner;
    throw refuse(
      `has its guest's connection with ${whose}, and not with the Host Compute Service: nobody else can tell the guest`,
      'attach to a VM that was made with a GuestConnection',
    );
  }

  /** Gives the VM what the view takes, or nothing of it. The record is written before and while it does. */
  async attach(record: MountRecord, vm: ComputeSystem, view: VmView, operation: string): Promise<void> {
    await this.#locks.run(`utility VM ${vm.id}`, async () => {
      const refused = new Set<string>();
      const withoutMemory = new Set<string>();
      for (;;) {
        const run = { vm: vm.id, runtimeId: vm.runtimeId };
        const places = new VmPlaces(await this.#heldByOthers(record, run), refused, withoutMemory);
        const changes = planVmView(view, places);
        const attachment: Attachment = { ...run, changes, done: 0 };
        const failure = await this.#give({ ...record, attachment }, attachment);
        if (failure === undefined) return;
        const { error, change } = failure;
        const place = change.add.ResourcePath;
        if (change.disk === undefined || place === undefined) throw error;
        if (isErrorCode(error, 'already-exists')) refused.add(place);
        else if ('pmem' in change.disk.at && !isErrorCode(error, 'busy', 'unavailable', 'access-denied'))
          withoutMemory.add(change.disk.file);
        else throw error;
        if (refused.size > MOST_REFUSALS)
          throw new CimletError('failed-precondition', `${operation}: utility VM ${vm.id} is full`, {
            cause: error,
          });
      }
    });
  }

  /** Takes away what the VM was given, last first. A VM that is gone, or was started again, has nothing of it. */
  async detach(record: AttachedRecord): Promise<void> {
    const { attachment } = record;
    if (attachment === undefined || attachment.changes.length === 0) return;
    await this.#locks.run(`utility VM ${attachment.vm}`, async () => {
      const vm = await this.#sameRun(attachment);
      if (vm !== undefined) await this.#takeBack(record, attachment, vm);
    });
  }

  /** Throws what HCS throws when it can't be asked. */
  async state({ attachment }: AttachedRecord): Promise<Pick<ObservedMount, 'state' | 'message'>> {
    const missing = (message: string) => ({ state: 'missing' as const, message });
    if (attachment === undefined) return missing('it was never attached');
    const { vm: id, changes, done } = attachment;
    const vm = await findComputeSystem(this.#calls.computecore, id);
    if (vm === undefined) return missing(`utility VM ${id} does not run`);
    if (vm.runtimeId !== attachment.runtimeId) return missing(`utility VM ${id} was started again`);
    if (done < changes.length) return missing(`it is attached to utility VM ${id} in part only`);
    return { state: 'mounted' };
  }

  async #sameRun({ vm: id, runtimeId }: Attachment): Promise<ComputeSystem | undefined> {
    const vm = await findComputeSystem(this.#calls.computecore, id);
    return vm?.runtimeId === runtimeId ? vm : undefined;
  }

  async #reachesGuest(id: string): Promise<boolean> {
    const { computecore } = this.#calls;
    const query = { PropertyTypes: ['GuestConnection'] };
    const answer = await computecore.withComputeSystem(id, (system) =>
      computecore.getComputeSystemProperties(system, id, query),
    );
    const { GuestConnectionInfo: guest } = (answer ?? {}) as { GuestConnectionInfo?: unknown };
    return guest !== undefined && guest !== null;
  }

  /** The change that failed, and how, when nothing is left of those before it. */
  async #give(
    record: AttachedRecord,
    attachment: Attachment,
  ): Promise<{ error: unknown; change: Change } | undefined> {
    const { vm, changes } = attachment;
    const held = new Set((await this.#heldByOthers(record, attachment)).map(({ key }) => key));
    const { computecore, vmcompute } = this.#calls;
    return computecore.withComputeSystem(vm, async (system) => {
      await this.#note(record, attachment, 0);
      for (const [index, change] of changes.entries()) {
        try {
          if (!held.has(change.key)) {
            if (change.disk !== undefined) await vmcompute.grantVmAccess(vm, change.disk.file);
            await computecore.modifyComputeSystem(system, vm, change.add);
          }
        } catch (error) {
          // What HCS refused it hasn't done. Where it fell silent, it may have.
          const begun = isErrorCode(error, 'unavailable') ? index + 1 : index;
          const undone = { ...attachment, changes: changes.slice(0, begun), done: index };
          const told = await afterFailure(error, () => this.#takeBackFrom(system, record, undone));
          if (told !== error) throw told;
          await this.#note(record, { ...attachment, changes: [] }, 0);
          return { error, change };
        }
        await this.#note(record, attachment, index + 1);
      }
      return undefined;
    });
  }

  async #takeBack(record: AttachedRecord, attachment: Attachment, vm: ComputeSystem): Promise<void> {
    await this.#calls.computecore.withComputeSystem(vm.id, (system) =>
      this.#takeBackFrom(system, record, attachment),
    );
  }

  async #takeBackFrom(
    system: ComputeSystemHandle,
    record: AttachedRecord,
    attachment: Attachment,
  ): Promise<void> {
    const { vm, changes, done } = attachment;
    const held = new Set((await this.#heldByOthers(record, attachment)).map(({ key }) => key));
    for (const [index, { key, remove }] of [...changes.entries()].slice(0, done + 1).toReversed()) {
      for (const document of held.has(key) ? [] : remove)
        try {
          await this.#calls.computecore.modifyComputeSystem(system, vm, document);
        } catch (error) {
          const isSure = index < done;
          const isGone = isErrorCode(error, 'not-found');
          if (!isGone && (isSure || isErrorCode(error, 'busy', 'unavailable'))) throw error;
        }
      await this.#note(record, attachment, index);
    }
  }

  /** What this run of the VM was given for other views. */
  async #heldByOthers(
    { request }: MountRecord,
    { vm, runtimeId }: Pick<Attachment, 'vm' | 'runtimeId'>,
  ): Promise<Change[]> {
    const records = await readMountRecords<AttachedRecord>(this.#layout);
    return records.flatMap(({ request: { volumeGuid }, attachment }) => {
      const isOther = volumeGuid !== request.volumeGuid;
      if (!isOther || attachment?.vm !== vm || attachment?.runtimeId !== runtimeId) return [];
      return attachment?.changes.slice(0, attachment.done) ?? [];
    });
  }

  async #note(record: AttachedRecord, attachment: Attachment, done: number): Promise<void> {
    attachment.done = done;
    await writeMountRecord(this.#layout, { ...record, attachment });
  }
}

/** As many places as a VM can have. */
const MOST_REFUSALS = 4 * 64 + 128;
