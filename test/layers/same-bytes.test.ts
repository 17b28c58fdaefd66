/** Layers are the same bytes whatever was written before them, in which process, where in the world. */

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { digestsOfImports } from './same-bytes.ts';
import { expected, linksForward, type Operation, stack, tarOfOperations } from './stack-model.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cimlet-same-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const sound = stack.filter((layers) => expected(layers) !== undefined && !linksForward(layers));

const tarsOf = (layers: readonly Operation[][]) => layers.map((layer) => tarOfOperations(layer));

it('in any order of imports that have nothing to do with each other', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(sound, { minLength: 2, maxLength: 4 }), async (stacks) => {
      const folder = mkdtempSync(join(directory, 'run-'));
      const inOrder = await digestsOfImports(stacks.map(tarsOf), join(folder, 'there'));
      const reversed = await digestsOfImports(stacks.toReversed().map(tarsOf), join(folder, 'back'));
      expect(reversed.toReversed()).toEqual(inOrder);
      rmSync(folder, { recursive: true });
    }),
    { numRuns: 25 },
  );
});

it('in another process, time zone, language and directory', async () => {
  const stacks = fc.sample(sound, 12).map(tarsOf);
  const here = await digestsOfImports(stacks, join(directory, 'here'));
  const input = join(directory, 'stacks.json');
  writeFileSync(input, JSON.stringify(stacks.map((tars) => tars.map((tar) => tar.toString('base64')))));
  const elsewhere = join(directory, 'elsewhere', 'deeper');
  mkdirSync(elsewhere, { recursive: true });
  const child = join(import.meta.dirname, 'same-bytes.ts');
  const printed = execFileSync(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', child, input, elsewhere],
    {
      env: { ...process.env, TZ: 'Pacific/Auckland', LC_ALL: 'tr_TR.UTF-8', LANG: 'tr_TR.UTF-8' },
      encoding: 'utf8',
    },
  );
  expect(JSON.parse(printed)).toEqual(here);
});
