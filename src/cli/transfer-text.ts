/** A transfer in one line: `downloading █████░░░░░ 50%  5.0 MiB/10.0 MiB  1.2 MiB/s  4s left`. */

import { formatAge, formatBytes, truncateMiddle, widthOf } from './text.ts';

export interface Transfer {
  phase: string;
  /** Bytes. */
  done: number;
  total: number;
  /** Bytes per second; undefined while nothing can be said. */
  rate?: number | undefined;
}

/** As much as `columns` have room for; the percentage goes last. */
export function transferText({ phase, done, total, rate = 0 }: Transfer, columns: number): string {
  const share = total === 0 ? 1 : Math.min(1, done / total);
  const percent = `${Math.floor(share * 100)}%`;
  const bar = (length: number) => {
    const filled = Math.round(share * length);
    return '█'.repeat(filled) + '░'.repeat(length - filled);
  };
  const amount = `${formatBytes(done)}/${formatBytes(total)}`;
  const left = formatAge(((total - done) / rate) * 1000);
  const speed =
    rate < 1 ? [] : [`${formatBytes(Math.round(rate))}/s`, ...(share < 1 ? [`${left} left`] : [])];
  const choices = [
    [`${phase} ${bar(20)} ${percent}`, amount, ...speed],
    [`${phase} ${bar(10)} ${percent}`, amount, ...speed],
    [`${phase} ${bar(10)} ${percent}`, ...speed],
    [`${phase} ${bar(10)} ${percent}`, ...speed.slice(-1)],
    [`${phase} ${bar(5)} ${percent}`],
    [`${phase} ${percent}`],
    [percent],
  ].map((parts) => parts.join('  '));
  return choices.find((text) => widthOf(text) <= columns) ?? truncateMiddle(percent, columns);
}
