/** Runs a command as a process of its own and reads its time and peak memory from the operating system. */

import { spawnSync } from 'node:child_process';

export interface Measured {
  seconds: number;
  /** User and system time of all its threads. */
  cpuSeconds: number;
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
  const [kibibytes, cpuSeconds] = peak.slice(marker.length).split(' ').map(Number);
  return {
    seconds,
    cpuSeconds: cpuSeconds ?? Number.NaN,
    peakMiB: (kibibytes ?? Number.NaN) / 1024,
    stdout: child.stdout,
  };
}

/** Runs a shell pipeline of other people's programs; returns the seconds of processor time that they took. */
export function runPipeline(pipeline: string, args: readonly string[]): number {
  const child = spawnSync('sh', ['-c', `${pipeline}\nstatus=$?; times >&2; exit $status`, 'sh', ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
    encoding: 'utf8',
  });
  if (child.status !== 0) throw new Error(`${pipeline}: exit ${child.status}\n${child.stderr}`);
  // The last line is that of the shell's children: 1m2.34s of user time, then of system time.
  const spent = child.stderr.trimEnd().split('\n').at(-1) ?? '';
  const seconds = [...spent.matchAll(/(\d+)m([\d.]+)s/g)].map(([, m, s]) => Number(m) * 60 + Number(s));
  return seconds.reduce((sum, each) => sum + each, 0);
}
