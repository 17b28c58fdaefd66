/** Tables as kubectl prints them: upper-case headings, columns three spaces apart, no rules. */

import { indentWrapped, type Paint, padEnd, printable, truncateMiddle, widthOf, wrap } from './text.ts';

export interface Column<Row> {
  heading: string;
  value: (row: Row) => string;
  /** Columns that give way when the terminal is narrow, by losing their middle; the others keep their width. */
  shrinks?: boolean;
  /** Loses nothing when the terminal is narrow, but goes on in further lines. For the last column. */
  wraps?: boolean;
  paint?: (text: string, row: Row, paint: Paint) => string;
}

const GAP = 3;
const NARROW_GAP = 2;
const NARROWEST = 12;
/** With less room than that beside the others, a text goes below them. */
const NARROWEST_TEXT = 38;
const INDENT_BELOW = 6;

export interface Table<Row> {
  headings: string;
  /** Also of a row that came later: what doesn't fit its column then pushes the others aside. */
  lines(row: Row): string[];
}

/** Columns as wide as these rows need, and no more than `width` together as far as they may give way. */
export function fitTable<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  width: number,
  paint: Paint,
): Table<Row> {
  const cell = (row: Row, column: Column<Row>) => printable(column.value(row)) || '-';
  const needed = (column: Column<Row>) =>
    rows.reduce((most, row) => Math.max(most, widthOf(cell(row, column))), widthOf(column.heading));
  const last = columns.at(-1);
  const text = last?.wraps ? last : undefined;
  const beside = text === undefined ? columns : columns.slice(0, -1);
  const widths = beside.map(needed);
  const textWidth = text === undefined ? 0 : needed(text);
  const widthWith = (gap: number) => sum(widths) + gap * (columns.length - 1);
  const gap = widthWith(GAP) + textWidth <= width ? GAP : NARROW_GAP;
  shrink(widths, beside, widthWith(gap) + Math.min(textWidth, NARROWEST_TEXT) - width);
  const left = sum(widths) + gap * beside.length;
  const room = Math.min(textWidth, width - left);
  const isBelow = room < Math.min(textWidth, NARROWEST_TEXT);

  const join = (cells: string[]) => cells.join(' '.repeat(gap)).trimEnd();
  const headings = beside.map((column, index) => padEnd(column.heading, widths[index] ?? 0));
  const rowOf = (row: Row) =>
    beside.map((column, index) => {
      const columnWidth = widths[index] ?? 0;
      const whole = cell(row, column);
      const shown = column.shrinks ? truncateMiddle(whole, columnWidth) : whole;
      const painted = column.paint === undefined ? shown : column.paint(shown, row, paint);
      return painted + ' '.repeat(Math.max(0, columnWidth - widthOf(shown)));
    });
  if (text === undefined) return { headings: join(headings), lines: (row) => [join(rowOf(row))] };
  if (isBelow)
    return {
      headings: join(headings),
      lines: (row) => [join(rowOf(row)), ...indentWrapped(cell(row, text), INDENT_BELOW, width)],
    };
  return {
    headings: join([...headings, text.heading]),
    lines: (row) => {
      const [first = '', ...rest] = wrap(cell(row, text), room);
      return [join([...rowOf(row), first]), ...rest.map((line) => ' '.repeat(left) + line)];
    },
  };
}

/** The headings, then the rows. */
export function renderTable<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  width: number,
  paint: Paint,
): string[] {
  const table = fitTable(rows, columns, width, paint);
  return [table.headings, ...rows.flatMap(table.lines)];
}

/** Takes `excess` off the widths, always of the widest that may still give way. */
function shrink<Row>(widths: number[], columns: readonly Column<Row>[], excess: number): void {
  for (let left = excess; left > 0; left--) {
    let widest = -1;
    columns.forEach(({ shrinks }, index) => {
      const candidate = widths[index] ?? 0;
      if (shrinks && candidate > NARROWEST && candidate > (widths[widest] ?? 0)) widest = index;
    });
    if (widest === -1) return;
    widths[widest] = (widths[widest] ?? 0) - 1;
  }
}

function sum(widths: readonly number[]): number {
  return widths.reduce((total, each) => total + each, 0);
}
