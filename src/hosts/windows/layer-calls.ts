/**
 * The layer calls of vmcompute.dll and computestorage.dll as Windows bears them: a few at a time (containerd#4419: mounts
 * fail when many chains are made at once), tried again while it isn't ready, and once more after taking away what an
 * earlier try left attached, if nothing can be using that.
 */

import { setTimeout as wait } from 'node:timers/promises';
import { CimletError } from '../../errors.ts';
import type { ComputeStorage } from '../../native/windows/computestorage.ts';
import { isWin32Error } from '../../native/windows/native-error.ts';
import { Win32Error } from '../../native/windows/status.ts';
import type { VmCompute } from '../../native/windows/vmcompute.ts';
import { Limiter } from '../limiter.ts';
import { ifAny, refuseOpen, type ScratchSight, STOP, staysOpen, useOfScratch } from './attached-scratch.ts';
import { seeComputeSystems } from './compute-systems.ts';

export interface LayerCalls {
  vmcompute: VmCompute;
  computestorage: ComputeStorage;
}

/** Layer calls under way at a time. */
const AT_ONCE = 4;
const ATTEMPTS = 5;
const PAUSE_MS = 100;

/** Takes away what stands in a call's way; it is given the call's arguments. */
type Detachers<T> = {
  readonly [Name in keyof T]?: T[Name] extends (...args: infer Args) => Promise<unknown>
    ? (...args: Args) => Promise<void>
    : never;
};

/** Both DLLs' calls under one limit. */
export function bearableLayerCalls(api: LayerCalls & ScratchSight): LayerCalls {
  const { vmcompute, computestorage, computecore, kernel32 } = api;
  const limiter = new Limiter(AT_ONCE);
  const deactivate = async (layer: string): Promise<void> => {
    const use = await useOfScratch(api, layer, await seeComputeSystems(computecore));
    if (use !== undefined) throw inUse(use);
    await ifAny(() => vmcompute.unprepareLayer(layer));
    await ifAny(() => vmcompute.deactivateLayer(layer));
  };
  return {
    vmcompute: bearable(vmcompute, limiter, {
      activateLayer: deactivate,
      importLayer: deactivate,
      destroyLayer: deactivate,
      // What is prepared was activated here: who uses it by now has something on it open.
      prepareLayer: async (layer) => {
        await refuseOpen(api, layer, `prepare layer ${layer} again`);
        await ifAny(() => vmcompute.unprepareLayer(layer));
      },
    }),
    computestorage: bearable(computestorage, limiter, {
      attachOverlayFilter: async (volume, layers) => {
        if (await staysOpen(kernel32, volume)) throw inUse(`something on ${volume} is open`);
        await ifAny(() => computestorage.detachOverlayFilter(volume, layers));
      },
    }),
  };
}

function inUse(why: string): CimletError {
  return new CimletError('busy', why, { hint: STOP });
}

function bearable<T extends object>(calls: T, limiter: Limiter, detachers: Detachers<T>): T {
  return new Proxy(calls, {
    get: (target, name) => {
      const member = Reflect.get(target, name);
      if (typeof member !== 'function') return member;
      const detach = Reflect.get(detachers, name);
      return (...args: unknown[]) =>
        limiter.run(() => {
          const call = () => member.apply(target, args);
          return detach === undefined
            ? call()
            : onceDetached(
                () => whileNotReady(call),
                () => detach(...args),
              );
        });
    },
  });
}

/**
 * Errors 21 and 1167 pass by themselves while Windows attaches a disk (hcsshim tries as often); any other, and the last
 * of these, is thrown.
 */
async function whileNotReady<T>(call: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++)
    try {
      return await call();
    } catch (error) {
      const isPassing = isWin32Error(error, Win32Error.NOT_READY, Win32Error.DEVICE_NOT_CONNECTED);
      if (!isPassing || attempt === ATTEMPTS) throw error;
      await wait(PAUSE_MS);
    }
}

/** "Access denied" and "in use" are often what was left attached. A second time they are thrown. */
async function onceDetached<T>(call: () => Promise<T>, detach: () => Promise<void>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    if (!isWin32Error(error, Win32Error.ACCESS_DENIED, Win32Error.SHARING_VIOLATION)) throw error;
    try {
      await detach();
    } catch (obstacle) {
      if (!(obstacle instanceof CimletError)) throw obstacle;
      if (obstacle.code !== 'busy') throw error;
      throw new CimletError('busy', `${error.message}: ${obstacle.message}`, {
        hint: obstacle.hint,
        cause: error,
      });
    }
    await wait(PAUSE_MS);
    return call();
  }
}
