/** Calls that fail for an instant while Windows attaches a disk. hcsshim tries the same ones again, as often. */

import { setTimeout as wait } from 'node:timers/promises';
import { isWin32Error } from '../../native/windows/native-error.ts';
import { Win32Error } from '../../native/windows/status.ts';

const ATTEMPTS = 5;
const PAUSE_MS = 100;

/** Errors 21 and 1167 pass by themselves; any other, and the last of these, is thrown. */
export async function whileNotReady<T>(call: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++)
    try {
      return await call();
    } catch (error) {
      const isPassing = isWin32Error(error, Win32Error.NOT_READY, Win32Error.DEVICE_NOT_CONNECTED);
      if (!isPassing || attempt === ATTEMPTS) throw error;
      await wait(PAUSE_MS);
    }
}
