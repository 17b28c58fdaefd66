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

/** One line per row, and the headings; cut to `width` columns by shortening what may shrink in its middle. */
export function renderTable<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  width: number,
  paint: Paint,
): string[] {
  const cells = rows.map((row) => columns.map((column) => printable(column.value(row)) || '-'));
  const widths = columns.map((column, index) =>
    cells.reduce((most, row) => Math.max(most, widthOf(row[index] ?? '')), widthOf(column.heading)),
  );
  shrink(widths, columns, width);
  const join = (texts: string[]) => texts.join(' '.repeat(GAP)).trimEnd();
  const headings = columns.map((column, index) => padEnd(column.heading, widths[index] ?? 0));
  const lines = cells.map((row, at) =>
    join(
      columns.map((column, index) => {
        const columnWidth = widths[index] ?? 0;
        const text = truncateMiddle(row[index] ?? '', columnWidth);
        const source = rows[at];
        const painted = column.paint && source !== undefined ? column.paint(text, source, paint) : text;
        return painted + ' '.repeat(Math.max(0, columnWidth - widthOf(text)));
      }),
    ),
  );
  return [join(headings), ...lines];
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
