import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { followSource, restoreSource } from '../../src/agent/follow-source.ts';
import { CimletError } from '../../src/errors.ts';
import { createFolderSource } from '../../src/sources/folder-source.ts';
import type { Source } from '../../src/sources/source.ts';

const SOUND =
  'apiVersion: cimlet.dev/v1alpha1\nkind: Image\nmetadata: {name: a}\nspec: {source: {ociLayout: ./a}}\n';

let folder: string;
let source: Source;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cimlet-follow-'));
  mkdirSync(join(folder, 'here'));
  source = createFolderSource(
    { name: 'here', folder: { path: 'here' } },
    { cacheDirectory: join(folder, 'cache'), baseDirectory: folder },
  );
});
afterEach(async () => {
  await source.close();
  rmSync(folder, { recursive: true, force: true });
});

/** Follows until that many looks are over: what was declared, and the trouble after each look. */
async function follow(followed: Source, looks: number) {
  const stopping = new AbortController();
  const troubles: (string | undefined)[] = [];
  const declared: string[] = [];
  const nothing = () => undefined;
  await followSource(followed, {
    signal: stopping.signal,
    isInForce: false,
    log: { debug: nothing, info: nothing, warn: nothing, error: nothing },
    onDeclared: ({ resources }) => declared.push(resources.map(({ metadata }) => metadata.name).join()),
    onLook: ({ trouble }) => {
      troubles.push(trouble?.code);
      if (troubles.length < looks) source.touch();
      else stopping.abort();
    },
  });
  return { troubles, declared };
}

it('a revision that is not sound stays a trouble, however often it is looked at', async () => {
  writeFileSync(join(folder, 'here', 'a.yaml'), SOUND.replace('Image', 'Imag'));
  expect(await follow(source, 2)).toEqual({
    troubles: ['invalid-manifest', 'invalid-manifest'],
    declared: [],
  });
});

it('a revision that could not be kept, on a full disk say, is in force once it can', async () => {
  writeFileSync(join(folder, 'here', 'a.yaml'), SOUND);
  let failures = 1;
  const accept: Source['accept'] = async (revision) => {
    if (failures-- > 0) throw new CimletError('no-space', 'write accepted.json: no space left');
    await source.accept(revision);
  };
  expect(await follow({ ...source, accept }, 3)).toEqual({
    troubles: ['no-space', undefined, undefined],
    declared: ['a'],
  });
});

it('what was in force last counts as nothing when it cannot be read, and that is logged', async () => {
  const accepted: Source['accepted'] = async () => {
    throw new CimletError('native', 'read accepted.json: i/o error');
  };
  const warnings: string[] = [];
  const nothing = () => undefined;
  const warn = (_fields: object, message: string) => warnings.push(message);
  const log = { debug: nothing, info: nothing, warn, error: nothing };
  expect(await restoreSource({ ...source, accepted }, log)).toBeUndefined();
  expect(warnings).toEqual(['read accepted.json: i/o error']);
});
