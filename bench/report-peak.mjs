import { readFileSync } from 'node:fs';
import { isMainThread } from 'node:worker_threads';

if (isMainThread) {
  process.on('exit', () => {
    const { userCPUTime, systemCPUTime } = process.resourceUsage();
    // Of this program alone: what is counted for a process (maxRSS) begins with what its parent had when it was forked.
    const [, peak] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'latin1')) ?? [];
    process.stderr.write(`\ncimlet-bench-peak ${peak} ${(userCPUTime + systemCPUTime) / 1e6}\n`);
  });
}
