/**
 * bindfltapi.dll: the bind filter, which shows a directory or volume at another path. It has no public documentation;
 * go-winio's pkg/bindfilter declares it.
 */

import { CimletError } from '../../errors.ts';
import { C, pointerTo, type Signature, struct } from '../library.ts';
import { HANDLE, HRESULT } from './ctypes.ts';
import type { Dll, Dlls } from './dll.ts';

const { uint32, str16, pointer } = C;

const CALLS = {
  BfSetupFilter: [HRESULT, [HANDLE, uint32, str16, str16, pointerTo(str16), uint32]],
  BfRemoveMapping: [HRESULT, [HANDLE, str16]],
  BfGetMappings: [HRESULT, [uint32, HANDLE, str16, pointer, pointer, pointer]],
} satisfies Record<string, Signature>;

/** The three structs of BfGetMappings' answer; offsets are from its beginning, lengths in bytes. */
export const BIND_MAPPINGS = struct('BIND_MAPPINGS', {
  Size: uint32,
  Status: uint32,
  MappingCount: uint32,
});
export const BIND_MAPPING = struct('BIND_MAPPING', {
  VirtRootLength: uint32,
  VirtRootOffset: uint32,
  Flags: uint32,
  NumberOfTargets: uint32,
  TargetEntriesOffset: uint32,
});
export const BIND_TARGET = struct('BIND_TARGET', { TargetRootLength: uint32, TargetRootOffset: uint32 });

const HEADER_BYTES = 12;
const MAPPING_BYTES = 20;
const TARGET_BYTES = 8;
const ANSWER_BYTES = 256 * 1024;
const MAPPINGS_OF_VOLUME = 1;

/** Bits of a mapping's flags. Without `noMultipleTargets` a second source at the same root lies over the first. */
export const BindFlag = { readOnly: 1, merged: 2, useCurrentSilo: 4, noMultipleTargets: 0x40 } as const;

/** Paths as the kernel has them, such as `\Device\HarddiskVolume2\x`. */
export interface BindMapping {
  root: string;
  flags: number;
  targets: string[];
}

const EVERYONE = 0;

export class BindFilter {
  readonly dll: Dll<keyof typeof CALLS>;

  constructor(dlls: Dlls) {
    this.dll = dlls.open('bindfltapi.dll', CALLS);
  }

  /**
   * Shows `target` at `root`, for every process or for those of a job. A volume path must end in a backslash; the
   * directory that holds `root` must exist.
   */
  async setupFilter(root: string, target: string, flags: number, job: number = EVERYONE): Promise<void> {
    const args = [job, flags, root, target, null, 0];
    await this.dll.call(`bind ${target} at ${root}`, 'BfSetupFilter', ...args);
  }

  async removeMapping(root: string, job: number = EVERYONE): Promise<void> {
    await this.dll.call(`remove the binding at ${root}`, 'BfRemoveMapping', job, root);
  }

  /** The mappings whose roots are on the volume that `path` is on. */
  async getMappings(path: string): Promise<BindMapping[]> {
    const [size, answer] = [Buffer.alloc(4), Buffer.alloc(ANSWER_BYTES)];
    size.writeUInt32LE(answer.length);
    const operation = `list bindings on the volume of ${path}`;
    const args = [MAPPINGS_OF_VOLUME, EVERYONE, path, null, size, answer];
    await this.dll.call(operation, 'BfGetMappings', ...args);
    return decodeMappings(answer.subarray(0, size.readUInt32LE()), operation);
  }
}

/** Throws `corrupt` for an answer that points outside of itself. */
export function decodeMappings(answer: Buffer, operation: string): BindMapping[] {
  try {
    const count = answer.readUInt32LE(8);
    return Array.from({ length: Math.min(count, answer.length) }, (_, index) => {
      const at = HEADER_BYTES + index * MAPPING_BYTES;
      const [length, offset, flags, targets, entries] = [0, 4, 8, 12, 16].map((field) =>
        answer.readUInt32LE(at + field),
      ) as [number, number, number, number, number];
      return {
        root: textAt(answer, offset, length),
        flags,
        targets: Array.from({ length: Math.min(targets, answer.length) }, (_, target) => {
          const entry = entries + target * TARGET_BYTES;
          return textAt(answer, answer.readUInt32LE(entry + 4), answer.readUInt32LE(entry));
        }),
      };
    });
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new CimletError('corrupt', `${operation}: the answer points outside of itself`, { cause });
  }
}

function textAt(answer: Buffer, offset: number, length: number): string {
  if (offset + length > answer.length) throw new RangeError(`${length} bytes at ${offset}`);
  return answer.toString('utf16le', offset, offset + length).split('\0', 1)[0] ?? '';
}
