import { isMainThread } from 'node:worker_threads';

if (isMainThread) {
  process.on('exit', () => process.stderr.write(`\ncimlet-bench-peak ${process.resourceUsage().maxRSS}\n`));
}
