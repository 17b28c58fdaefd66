/** Runs a command as a process of its own and reads its time and peak memory from the operating system. */

import { spawnSync } from 'node:child_process';

export interface Measured {
  seconds: number;
  /** Largest resident set of the process, MiB. */
  peakMiB: number;
  stdout: string;
}

/** Measures `node <script> <args>`; throws with its output when it fails. */
export function measureNode(script: string, args: readonly string[]): Measured {
  const start = performance.now();
  const marker = 'cimlet-bench-peak ';
  const child = spawnSync(
    process.execPath,
    [
      '--disable-warning=ExperimentalWarning',
      '--import',
      new URL('./report-peak.mjs', import.meta.url).href,
      script,
      ...args,
    ],
    { encoding: 'utf8', maxBuffer: 1 << 30, env: { ...process.env, NO_COLOR: '1' } },
  );
  const seconds = (performance.now() - start) / 1000;
  const peak = child.stderr.split('\n').find((line) => line.startsWith(marker));
  if (child.status !== 0 || peak === undefined) {
    throw new Error(
      `${script} ${args.join(' ')}: exit ${child.status}\n${child.stdout.slice(-2000)}\n${child.stderr.slice(-4000)}`,
    );
  }
  return { seconds, peakMiB: Number(peak.slice(marker.length)) / 1024, stdout: child.stdout };
}

/** Measures a shell pipeline of other people's programs. */
export function runPipeline(pipeline: string, args: readonly string[]): void {
  const child = spawnSync('sh', ['-c', pipeline, 'sh', ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
    encoding: 'utf8',
  });
  if (child.status !== 0) throw new Error(`${pipeline}: exit ${child.status}\n${child.stderr}`);
}
