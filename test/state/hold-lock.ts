/** Takes the lock of the root named by the first argument, says so, and holds it until it is killed. */

import { acquireRootLock } from '../../src/state/root-lock.ts';

acquireRootLock(process.argv[2] ?? '', 'agent');
process.stdout.write('locked\n');
process.stdin.resume();
