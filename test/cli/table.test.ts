import { expect, test } from 'vitest';
import { renderTable } from '../../src/cli/table.ts';
import { createPaint, widthOf } from '../../src/cli/text.ts';

const plain = createPaint(false);
const columns = [
  { heading: 'NAME', value: (row: { name: string; path: string }) => row.name },
  { heading: 'PATH', value: (row: { path: string }) => row.path, shrinks: true },
];

test('columns line up, empty cells are dashes', () => {
  const rows = [
    { name: 'app', path: '/mnt/app' },
    { name: 'longer-name', path: '' },
  ];
  expect(renderTable(rows, columns, 80, plain)).toEqual([
    'NAME          PATH',
    'app           /mnt/app',
    'longer-name   -',
  ]);
});

test('what may shrink gives way on a narrow terminal', () => {
  const rows = [{ name: 'app', path: `/mnt/${'x'.repeat(100)}/end` }];
  const lines = renderTable(rows, columns, 40, plain);
  expect(lines.map(widthOf).every((width) => width <= 40)).toBe(true);
  expect(lines[1]).toMatch(/^app {4}\/mnt\/x+…x+\/end$/);
});

test('hostile names are escaped', () => {
  const rows = [{ name: 'a\u001b[2J', path: 'b\nc' }];
  expect(renderTable(rows, columns, 80, plain)[1]).toBe('a\\x1b[2J   b\\x0ac');
});

test('colour takes no columns', () => {
  const red = [
    { ...columns[0]!, paint: (text: string, _row: unknown, paint: typeof plain) => paint('red', text) },
    columns[1]!,
  ];
  const [, line] = renderTable([{ name: 'a', path: 'b' }], red, 80, createPaint(true));
  expect(line).toBe('\u001b[31ma\u001b[39m      b');
});
