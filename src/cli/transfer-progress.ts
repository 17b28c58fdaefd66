/** Shows blobs on their way: each with a bar of its own on a terminal, tens of per cent of all on standard error anywhere else. */

import type { Progress } from '../hosts/host.ts';
import { openLiveArea } from './live-area.ts';
import { Rate } from './rate.ts';
import type { Terminal } from './terminal.ts';
import { shortenDigests, truncateMiddle, widthOf } from './text.ts';
import { type Transfer, transferText } from './transfer-text.ts';

export interface TransferProgress {
  handle(progress: Progress): void;
  /** Prints a line on standard error. */
  say(line: string): void;
  /** Nothing is left of it on a terminal: what was done is said by whoever did it. */
  close(): void;
}

export async function openTransferProgress(terminal: Terminal): Promise<TransferProgress> {
  return terminal.live ? liveProgress(terminal) : plainProgress(terminal);
}

function plainProgress(terminal: Terminal): TransferProgress {
  const say = (line: string) => terminal.printError(line);
  let said = '';
  return {
    handle({ phase, done, total }) {
      const tens = total === 0 ? 10 : Math.floor((done / total) * 10);
      const line = `${phase} ${tens * 10}%`;
      if (line !== said) say(line);
      said = line;
    },
    say,
    close: () => undefined,
  };
}

type Moving = Omit<Transfer, 'rate'> & { rate: Rate };

async function liveProgress(terminal: Terminal): Promise<TransferProgress> {
  const blobs = new Map<string, Moving>();
  let all: Moving | undefined;
  const area = await openLiveArea(terminal, () =>
    transferLines(blobs, all, { width: terminal.width, rows: terminal.rows }, performance.now()),
  );
  const moved = (before: Moving | undefined, now: Omit<Transfer, 'rate'>): Moving => {
    const rate = before?.phase === now.phase ? before.rate : new Rate();
    rate.observe(now.done, performance.now());
    return { ...now, rate };
  };
  return {
    handle({ blob, ...sum }) {
      if (all?.phase !== sum.phase) blobs.clear();
      all = moved(all, sum);
      if (blob === undefined) return;
      const { digest, done, total } = blob;
      if (done === total) blobs.delete(digest);
      else blobs.set(digest, moved(blobs.get(digest), { phase: sum.phase, done, total }));
    },
    say: (line) => area.aside(() => terminal.printError(line)),
    close: area.remove,
  };
}

function transferLines(
  blobs: ReadonlyMap<string, Moving>,
  all: Moving | undefined,
  { width, rows }: { width: number; rows: number },
  now: number,
): string[] {
  if (all === undefined) return [];
  const lines = [...blobs].slice(0, Math.max(0, rows - 3)).map(([digest, { rate, ...blob }]) => {
    const label = truncateMiddle(shortenDigests(digest), Math.floor(width / 2));
    const room = width - 1 - widthOf(label) - 2;
    return `${label}  ${transferText({ ...blob, rate: rate.perSecond(now) }, room)}`;
  });
  const { rate, ...sum } = all;
  return [...lines, transferText({ ...sum, rate: rate.perSecond(now) }, width - 1)];
}
