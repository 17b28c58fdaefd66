/** Lines at the bottom of a terminal that are drawn over again and again. Owns log-update. */

import { clearScreenDown, moveCursor } from 'node:readline';
import type { Terminal } from './terminal.ts';
import { widthOf } from './text.ts';

export interface LiveArea {
  /** Lets `print` write lines that stay, above the live ones. */
  aside(print: () => void): void;
  /** Draws the last state, which stays, and gives the terminal back. */
  close(): void;
  /** Takes the live lines away, and gives the terminal back. */
  remove(): void;
}

const FRAME_MS = 100;

/** `lines` is asked for every frame; none of them may be wider than the terminal. */
export async function openLiveArea(terminal: Terminal, lines: () => readonly string[]): Promise<LiveArea> {
  const { createLogUpdate } = await import('log-update');
  const update = createLogUpdate(terminal.stdout as NodeJS.WriteStream);
  let drawn: { width: number; lines: readonly string[] } = { width: terminal.width, lines: [] };

  const draw = () => {
    if (drawn.width !== terminal.width) wipe();
    const next = lines();
    // log-update 7.2 takes lines that only moved for unchanged, and leaves them where they were.
    if (drawn.lines.length !== next.length) update.clear();
    drawn = { width: terminal.width, lines: next };
    update(next.join('\n'));
  };
  /** Terminals break lines anew when they get narrower: what was drawn takes more rows than log-update remembers. */
  const wipe = () => {
    const rows = drawn.lines.reduce((sum, line) => sum + Math.ceil(widthOf(line) / terminal.width), 0);
    moveCursor(terminal.stdout, -Number.MAX_SAFE_INTEGER, -rows);
    clearScreenDown(terminal.stdout);
    update.done();
  };

  draw();
  const timer = setInterval(draw, FRAME_MS);
  return {
    aside(print) {
      update.clear();
      print();
      draw();
    },
    close() {
      clearInterval(timer);
      draw();
      update.done();
    },
    remove() {
      clearInterval(timer);
      draw();
      update.clear();
      update.done();
    },
  };
}
