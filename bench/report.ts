/** One line per figure; with --json one JSON object per line. */

export interface Figure {
  case: string;
  value: number;
  unit: string;
  /** What it is compared with, measured in the same run. */
  peer?: string;
  peerValue?: number;
}

const json = process.argv.includes('--json');

/** How often a case is run: as `--runs=N` says. */
export function runsWanted(byDefault: number): number {
  const option = process.argv.find((argument) => argument.startsWith('--runs='));
  return option === undefined ? byDefault : Number(option.slice('--runs='.length));
}

export function report(figure: Figure): void {
  const ratio = figure.peerValue === undefined ? undefined : figure.value / figure.peerValue;
  if (json) {
    const { value, unit, peer = null, peerValue = null } = figure;
    console.log(JSON.stringify({ case: figure.case, value, unit, peer, peerValue, ratio: ratio ?? null }));
    return;
  }
  const comparison =
    figure.peer === undefined
      ? ''
      : `   ${figure.peer}: ${round(figure.peerValue)} ${figure.unit} (ratio ${round(ratio)})`;
  console.log(`${figure.case.padEnd(46)} ${round(figure.value).padStart(10)} ${figure.unit}${comparison}`);
}

function round(value: number | undefined): string {
  if (value === undefined) return '';
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

/** The middle one of several timings of `run`, in seconds; `before` is not timed. */
export async function medianSeconds(runs: number, run: () => unknown, before?: () => void): Promise<number> {
  const seconds: number[] = [];
  for (let index = 0; index < runs; index++) {
    before?.();
    const start = performance.now();
    await run();
    seconds.push((performance.now() - start) / 1000);
  }
  return seconds.sort((a, b) => a - b)[Math.floor(runs / 2)] ?? Number.NaN;
}
