/** What the documents name is in the program: flags, variables, metrics, commands, paths. */

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, test } from 'vitest';

const REPOSITORY = resolve(import.meta.dirname, '../..');

const filesOf = (directory: string, ending: RegExp) =>
  readdirSync(join(REPOSITORY, directory), { recursive: true, encoding: 'utf8' })
    .filter((name) => ending.test(name))
    .map((name) => join(directory, name));
const textOf = (file: string) => readFileSync(join(REPOSITORY, file), 'utf8');

const documents = [
  'README.md',
  'CONTRIBUTING.md',
  ...filesOf('docs', /\.md$/),
  ...filesOf('deploy', /\.(ya?ml|json)$/),
].map((file) => ({ file, text: textOf(file) }));
const program = [...filesOf('src', /\.ts$/), ...filesOf('schemas', /\.json$/)].map(textOf).join('\n');
const aroundIt = [...filesOf('test', /\.ts$/), ...filesOf('bench', /\.ts$/)].map(textOf).join('\n');

/** Of curl, git, kubectl, npm and other programs. */
const FLAGS_OF_OTHERS = ['--unix-socket', '--from-literal', '--hash-offset', '--rounds', '--seed'];

/** Each match of `pattern` in a document, by its group or as a whole, that `isKnown` doesn't know. */
function strangers(pattern: RegExp, isKnown: (name: string) => boolean): string[] {
  return documents.flatMap(({ file, text }) =>
    [...text.matchAll(pattern)]
      .map(([whole, name = whole]) => name)
      .filter((name) => !isKnown(name))
      .map((name) => `${file}: ${name}`),
  );
}

test('flags', () => {
  const isKnown = (flag: string) =>
    FLAGS_OF_OTHERS.includes(flag) || new RegExp(`'[^']*${flag}(?![\\w-])`).test(program);
  expect(strangers(/(?<![\w-])--[a-z][a-z-]+/g, isKnown)).toEqual([]);
});

test('environment variables', () => {
  // Chosen in the same file.
  const isKnown = (name: string) =>
    program.includes(name) || aroundIt.includes(name) || name === 'CIMLET_TOKEN';
  expect(strangers(/\bCIMLET_[A-Z_]+/g, isKnown)).toEqual([]);
});

test('metrics', () => {
  const isKnown = (name: string) => program.includes(`'${name.replace(/_(bucket|sum|count)$/, '')}'`);
  expect(strangers(/\bcimlet_[a-z_]+/g, isKnown)).toEqual([]);
});

test('commands', () => {
  const isKnown = (name: string) =>
    program.includes(`.command('${name}')`) || program.includes(`command('${name} `);
  expect(strangers(/`cimlet ([a-z]+)/g, isKnown)).toEqual([]);
});

test('files and folders of the repository', () => {
  const pattern = /`((?:src|test|schemas|docs|scripts|examples|bench|deploy|bin)\/[\w./-]+)`/g;
  expect(strangers(pattern, (path) => existsSync(join(REPOSITORY, path)))).toEqual([]);
});

test('the map of the code has every folder of it', () => {
  const map = textOf('docs/architecture.md');
  const folders = readdirSync(join(REPOSITORY, 'src'), { withFileTypes: true }).filter((each) =>
    each.isDirectory(),
  );
  expect(folders.map(({ name }) => `src/${name}`).filter((path) => !map.includes(`| \`${path}\` |`))).toEqual(
    [],
  );
});
