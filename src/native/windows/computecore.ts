/** computecore.dll: the Host Compute Service. https://learn.microsoft.com/virtualization/api/hcs/reference/apioverview */

import { CimletError } from '../../errors.ts';
import { C, out, type Signature } from '../library.ts';
import { DOCUMENT, HANDLE, HRESULT, PWSTR } from './ctypes.ts';
import type { Dll, Dlls } from './dll.ts';
import { takeLocalString } from './system.ts';

const { void: none, uint32, str16, pointer } = C;

const CALLS = {
  HcsCreateOperation: [HANDLE, [pointer, pointer]],
  HcsCloseOperation: [none, [HANDLE]],
  HcsWaitForOperationResult: [HRESULT, [HANDLE, uint32, out(PWSTR)]],
  HcsEnumerateComputeSystems: [HRESULT, [str16, HANDLE]],
  HcsOpenComputeSystem: [HRESULT, [str16, uint32, out(HANDLE)]],
  HcsGetComputeSystemProperties: [HRESULT, [HANDLE, HANDLE, str16]],
  HcsModifyComputeSystem: [HRESULT, [HANDLE, HANDLE, DOCUMENT, HANDLE]],
  HcsCloseComputeSystem: [none, [HANDLE]],
  HcsGrantVmGroupAccess: [HRESULT, [str16]],
} satisfies Record<string, Signature>;

const GENERIC_ALL = 0x10000000;
const HCS_E_OPERATION_TIMEOUT = 0x80370118;
/** How long one thread is kept waiting before the signal is looked at again. */
const WAIT_MS = 500;

export type ComputeSystemHandle = number & { readonly brand: 'ComputeSystemHandle' };

/**
 * A change of a compute system: of what HCS gives it, of what is told to its guest, or of both. What is for the guest goes
 * through HCS only where HCS holds the connection to the guest.
 * https://learn.microsoft.com/virtualization/api/hcs/schemareference#ModifySettingRequest
 */
export interface ModifySettingRequest {
  ResourcePath?: string;
  RequestType?: ModifyRequestType;
  Settings?: object;
  GuestRequest?: { ResourceType: string; RequestType: ModifyRequestType; Settings: object };
}

export type ModifyRequestType = 'Add' | 'Remove' | 'Update';

export class ComputeCore {
  readonly dll: Dll<keyof typeof CALLS>;

  constructor(dlls: Dlls) {
    this.dll = dlls.open('computecore.dll', CALLS);
  }

  /** The service's answer, an array of compute systems. `query`: a SystemQuery; null for all. */
  async enumerateComputeSystems(query: object | null, signal?: AbortSignal): Promise<unknown> {
    const operation = 'list compute systems';
    return this.#operate(operation, signal, async (handle) => {
      const text = query === null ? null : JSON.stringify(query);
      await this.dll.call(operation, 'HcsEnumerateComputeSystems', text, handle);
    });
  }

  /** Uses a compute system that runs; its handle is closed after. `not-found` when there is none. */
  async withComputeSystem<Result>(
    id: string,
    use: (system: ComputeSystemHandle) => Promise<Result>,
  ): Promise<Result> {
    const system = [0];
    const operation = `open compute system ${id}`;
    await this.dll.call(operation, 'HcsOpenComputeSystem', id, GENERIC_ALL, system);
    try {
      return await use(system[0] as ComputeSystemHandle);
    } finally {
      await this.dll.call(operation, 'HcsCloseComputeSystem', system[0]);
    }
  }

  /** `query`: a Service_PropertyQuery such as `{ PropertyTypes: ['Storage'] }`; null for the basic properties. */
  async getComputeSystemProperties(
    system: ComputeSystemHandle,
    id: string,
    query: object | null,
    signal?: AbortSignal,
  ): Promise<unknown> {
    const operation = `ask for properties of compute system ${id}`;
    return this.#operate(operation, signal, async (handle) => {
      const text = query === null ? null : JSON.stringify(query);
      await this.dll.call(operation, 'HcsGetComputeSystemProperties', system, handle, text);
    });
  }

  /** Changes a running compute system. Once begun it is seen through, whatever the caller's signal: only its result says whether the system has changed. */
  async modifyComputeSystem(
    system: ComputeSystemHandle,
    id: string,
    document: ModifySettingRequest,
  ): Promise<unknown> {
    const operation = `modify compute system ${id}: ${describeModification(document)}`;
    return this.#operate(operation, undefined, async (handle) => {
      const args = [system, handle, JSON.stringify(document), 0];
      await this.dll.call(operation, 'HcsModifyComputeSystem', ...args);
    });
  }

  /** Lets every VM read a file. https://learn.microsoft.com/virtualization/api/hcs/reference/hcsgrantvmgroupaccess */
  async grantVmGroupAccess(file: string): Promise<void> {
    await this.dll.call(`grant VMs access to ${file}`, 'HcsGrantVmGroupAccess', file);
  }

  async #operate(
    operation: string,
    signal: AbortSignal | undefined,
    start: (handle: number) => Promise<void>,
  ): Promise<unknown> {
    const handle = await this.dll.call(operation, 'HcsCreateOperation', null, null);
    try {
      await start(handle);
      return parse(operation, await this.#result(operation, handle, signal));
    } finally {
      await this.dll.call(operation, 'HcsCloseOperation', handle);
    }
  }

  async #result(operation: string, handle: number, signal: AbortSignal | undefined): Promise<string> {
    for (;;) {
      const document: [bigint | null] = [null];
      const args = [handle, WAIT_MS, document];
      const { status } = await this.dll.attempt('HcsWaitForOperationResult', ...args);
      const text = takeLocalString(document[0]);
      if (status === 0) return text;
      if (status !== HCS_E_OPERATION_TIMEOUT)
        throw this.dll.failure(operation, 'HcsWaitForOperationResult', args, status, reason(text));
      if (signal?.aborted) throw new CimletError('cancelled', `${operation}: cancelled`);
    }
  }
}

function describeModification({ ResourcePath, RequestType, GuestRequest }: ModifySettingRequest): string {
  if (ResourcePath !== undefined) return `${RequestType} ${ResourcePath}`;
  return `${GuestRequest?.RequestType} ${GuestRequest?.ResourceType} in its guest`;
}

function parse(operation: string, text: string): unknown {
  if (text === '') return undefined;
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new CimletError('corrupt', `${operation}: the service's answer is no JSON`, { cause });
  }
}

/** The words of a failed operation's result document; it may repeat settings elsewhere. */
function reason(text: string): string | undefined {
  const message = /"ErrorMessage"\s*:\s*"((?:[^"\\]|\\.)*)"/.exec(text)?.[1];
  return message === undefined ? undefined : String(JSON.parse(`"${message}"`));
}
