import { isMainThread } from 'node:worker_threads';

if (isMainThread) {
  process.on('exit', () => {
    const { maxRSS, userCPUTime, systemCPUTime } = process.resourceUsage();
    process.stderr.write(`\ncimlet-bench-peak ${maxRSS} ${(userCPUTime + systemCPUTime) / 1e6}\n`);
  });
}
