/** Takes the lock of the root named by the first argument, says so, and holds it until it is killed. */

import { acquireRootLock } from '../../src/state/root-lock.ts';

acquireRootLock(process.argv[2] ?? '', 'agent');
// Nobody refers to the lock any more: it must outlive the collection of garbage.
globalThis.gc?.();
await new Promise(setImmediate);
globalThis.gc?.();
process.stdout.write('locked\n');
process.stdin.resume();
