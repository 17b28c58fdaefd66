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
  expect(lines[1]).toMatch(/^app {3}\/mnt\/x+…x+\/end$/);
});

test('a text gives way by going on below its heading, or below its row, and loses nothing', () => {
  const columns = [
    { heading: 'NAME', value: (row: { name: string }) => row.name },
    { heading: 'MESSAGE', value: (row: { text: string }) => row.text, wraps: true },
  ];
  const rows = [
    { name: 'app', text: 'there is a directory that is not empty at /mnt/app: left as it is' },
    { name: 'web', text: 'mounted' },
  ];
  expect(renderTable(rows, columns, 80, plain)).toEqual([
    'NAME   MESSAGE',
    'app    there is a directory that is not empty at /mnt/app: left as it is',
    'web    mounted',
  ]);
  expect(renderTable(rows, columns, 50, plain)).toEqual([
    'NAME  MESSAGE',
    'app   there is a directory that is not empty at',
    '      /mnt/app: left as it is',
    'web   mounted',
  ]);
  expect(renderTable(rows, columns, 40, plain)).toEqual([
    'NAME',
    'app',
    '      there is a directory that is not',
    '      empty at /mnt/app: left as it is',
    'web',
    '      mounted',
  ]);
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
