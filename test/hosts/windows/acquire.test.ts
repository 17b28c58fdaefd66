import { expect, it } from 'vitest';
import { CimletError } from '../../../src/errors.ts';
import { acquireAll, holding, type Resource, releaseAll } from '../../../src/hosts/windows/acquire.ts';

function resources(log: string[], failing: { acquire?: string; release?: string } = {}): Resource[] {
  const step = async (name: string, verb: 'acquire' | 'release') => {
    log.push(`${verb} ${name}`);
    if (failing[verb] === name) throw new CimletError('busy', `${verb} ${name}: no`, { hint: 'wait' });
  };
  return ['volume', 'directory', 'binding'].map((name) => ({
    acquire: () => step(name, 'acquire'),
    release: () => step(name, 'release'),
  }));
}

it('gives back in reverse', async () => {
  const log: string[] = [];
  await acquireAll(resources(log));
  await releaseAll(resources(log));
  expect(log.map((line) => line.split(' ')[1])).toEqual([
    ...['volume', 'directory', 'binding'],
    ...['binding', 'directory', 'volume'],
  ]);
});

it.each([
  ['volume', ['acquire volume']],
  ['directory', ['acquire volume', 'acquire directory', 'release volume']],
  [
    'binding',
    ['acquire volume', 'acquire directory', 'acquire binding', 'release directory', 'release volume'],
  ],
])('gives back what it took when the %s cannot be had', async (acquire, expected) => {
  const log: string[] = [];
  await expect(acquireAll(resources(log, { acquire }))).rejects.toMatchObject({ code: 'busy', hint: 'wait' });
  expect(log).toEqual(expected);
});

it('says so when that fails as well, and what was wrong first', async () => {
  const log: string[] = [];
  const failing = { acquire: 'binding', release: 'volume' };
  await expect(acquireAll(resources(log, failing))).rejects.toThrow(
    /acquire binding: no.*release volume: no/,
  );
});

it('keeps what lies below something that is still in use', async () => {
  const log: string[] = [];
  await expect(releaseAll(resources(log, { release: 'directory' }))).rejects.toThrow('release directory');
  expect(log).toEqual(['release binding', 'release directory']);
});

it.each<[string, { use?: string; release?: string }, string | RegExp]>([
  ['nothing', {}, 'used'],
  ['the use', { use: 'used up' }, 'used up'],
  ['the release', { release: 'volume' }, 'release volume: no'],
  ['the use, then the release', { use: 'used up', release: 'volume' }, /used up.*release volume: no/],
])('gives back what it held whatever fails: %s', async (_what, failing, expected) => {
  const log: string[] = [];
  const [volume] = resources(log, failing);
  if (volume === undefined) throw new Error('no resource');
  const held = holding(volume, async () => {
    log.push('use');
    if (failing.use !== undefined) throw new CimletError('corrupt', failing.use);
    return 'used';
  });
  const outcome = await held.catch((error: Error) => error.message);
  expect(outcome).toMatch(expected);
  expect(log).toEqual(['acquire volume', 'use', 'release volume']);
});
