/** Text for people: safe, measured in terminal columns, sized in human units. Pure functions. */

import { styleText } from 'node:util';
import stringWidth from 'string-width';

export type Style = Parameters<typeof styleText>[0];
/** Colours `text` when colour is on. */
export type Paint = (style: Style, text: string) => string;

/** A painter that never looks at the environment: whether colour is wanted was decided once, when the program began. */
export function createPaint(enabled: boolean): Paint {
  if (!enabled) return (_style, text) => text;
  return (style, text) => styleText(style, text, { validateStream: false });
}

// C0 and C1 controls, DEL, line separators, and the bidirectional controls that reorder what follows.
const UNSAFE = /[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu;

/** Names come from images and manifests that others wrote: control characters in them are shown as escapes. */
export function printable(text: string): string {
  return text.replace(UNSAFE, (character) => {
    const code = character.charCodeAt(0);
    return code < 0x100
      ? `\\x${code.toString(16).padStart(2, '0')}`
      : `\\u${code.toString(16).padStart(4, '0')}`;
  });
}

/** Like {@link printable}, for text of our own that may span lines. */
export function printableLines(text: string): string {
  return text.split('\n').map(printable).join('\n');
}

/** The first 12 hexadecimal digits of each digest in `text`, as container tools show them. */
export function shortenDigests(text: string): string {
  return text.replace(/\bsha(256|512):([0-9a-f]{12})[0-9a-f]{52,}/g, 'sha$1:$2');
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** `12.3 MiB`: binary units, three digits at most after which precision means nothing. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1023.95 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${UNITS[unit]}`;
}

/** `1.2 s`, `3m 05s`, from milliseconds. */
export function formatDuration(milliseconds: number): string {
  if (milliseconds < 59_950) return `${(milliseconds / 1000).toFixed(1)} s`;
  const seconds = Math.round(milliseconds / 1000);
  const pad = (value: number) => String(value).padStart(2, '0');
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${pad(seconds % 60)}s`;
  return `${Math.floor(seconds / 3600)}h ${pad(Math.floor((seconds % 3600) / 60))}m`;
}

/** kubectl's AGE column: one unit, two while the number is small. */
export function formatAge(milliseconds: number): string {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 120) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes}m`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours}h` : `${Math.floor(hours / 24)}d`;
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

/** Columns the text takes on a terminal (wide characters count two, colour codes none). */
export function widthOf(text: string): number {
  return stringWidth(text);
}

export function padEnd(text: string, columns: number): string {
  return text + ' '.repeat(Math.max(0, columns - widthOf(text)));
}

export function padStart(text: string, columns: number): string {
  return ' '.repeat(Math.max(0, columns - widthOf(text))) + text;
}

/** Shortens uncoloured text to `columns` by taking out its middle, where paths and names differ least. */
export function truncateMiddle(text: string, columns: number): string {
  if (widthOf(text) <= columns) return text;
  if (columns < 2) return columns === 1 ? '…' : '';
  const characters = [...text];
  const head = takeColumns(characters, Math.ceil((columns - 1) / 2));
  const tail = takeColumns(characters.toReversed(), Math.floor((columns - 1) / 2));
  return `${head.join('')}…${tail.toReversed().join('')}`;
}

function takeColumns(characters: string[], columns: number): string[] {
  let used = 0;
  const end = characters.findIndex((character) => {
    used += widthOf(character);
    return used > columns;
  });
  return end === -1 ? characters : characters.slice(0, end);
}

/**
 * Breaks uncoloured text at spaces into lines of at most `columns`. A word longer than a line keeps a line of its own,
 * whole: paths and digests must stay copyable.
 */
export function wrap(text: string, columns: number): string[] {
  const lines: string[] = [];
  for (const paragraph of text.split('\n')) {
    let line = '';
    for (const word of paragraph.split(' ')) {
      const longer = line === '' ? word : `${line} ${word}`;
      if (line !== '' && widthOf(longer) > columns) {
        lines.push(line);
        line = word;
      } else {
        line = longer;
      }
    }
    lines.push(line);
  }
  return lines;
}

/** Wrapped text with every line indented by `indent` spaces. */
export function indentWrapped(text: string, indent: number, columns: number): string[] {
  return wrap(text, Math.max(20, columns - indent)).map((line) => ' '.repeat(indent) + line);
}
