/** Tables as kubectl prints them: upper-case headings, columns three spaces apart, no rules. */

import { type Paint, padEnd, printable, truncateMiddle, widthOf } from './text.ts';

export interface Column<Row> {
  heading: string;
  value: (row: Row) => string;
  /** Columns that give way first when the terminal is narrow; the others keep their width. */
  shrinks?: boolean;
  paint?: (text: string, row: Row, paint: Paint) => string;
}

const GAP = 3;
const NARROWEST = 12;

export interface Table<Row> {
  headings: string;
  /** Also of a row that came later: what doesn't fit its column then pushes the others aside. */
  line(row: Row): string;
}

/** Columns as wide as these rows need; cut to `width` columns by shortening what may shrink in its middle. */
export function fitTable<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  width: number,
  paint: Paint,
): Table<Row> {
  const cell = (row: Row, column: Column<Row>) => printable(column.value(row)) || '-';
  const widths = columns.map((column) =>
    rows.reduce((most, row) => Math.max(most, widthOf(cell(row, column))), widthOf(column.heading)),
  );
  shrink(widths, columns, width);
  const join = (texts: string[]) => texts.join(' '.repeat(GAP)).trimEnd();
  return {
    headings: join(columns.map((column, index) => padEnd(column.heading, widths[index] ?? 0))),
    line: (row) =>
      join(
        columns.map((column, index) => {
          const columnWidth = widths[index] ?? 0;
          const whole = cell(row, column);
          const text = column.shrinks ? truncateMiddle(whole, columnWidth) : whole;
          const painted = column.paint === undefined ? text : column.paint(text, row, paint);
          return painted + ' '.repeat(Math.max(0, columnWidth - widthOf(text)));
        }),
      ),
  };
}

/** The headings, then one line per row. */
export function renderTable<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  width: number,
  paint: Paint,
): string[] {
  const table = fitTable(rows, columns, width, paint);
  return [table.headings, ...rows.map(table.line)];
}

function shrink<Row>(widths: number[], columns: readonly Column<Row>[], width: number): void {
  let excess = widths.reduce((sum, each) => sum + each, 0) + GAP * (columns.length - 1) - width;
  while (excess > 0) {
    let widest = -1;
    columns.forEach((column, index) => {
      const candidate = widths[index] ?? 0;
      if (column.shrinks && candidate > NARROWEST && candidate > (widths[widest] ?? 0)) widest = index;
    });
    if (widest === -1) return;
    widths[widest] = (widths[widest] ?? 0) - 1;
    excess--;
  }
}
