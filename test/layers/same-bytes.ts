/** Imports stacks of layers both ways and digests the files written; as a program, in a process of its own. */

import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CimletError } from '../../src/errors.ts';
import { importIntoCims } from '../tar/tar-helpers.ts';
import { importIntoBlockCims } from './block-layers.ts';

/** For each stack, in order, `name digest` of each file. */
export async function digestsOfImports(
  stacks: readonly (readonly Uint8Array[])[],
  directory: string,
): Promise<string[][]> {
  const digests: string[][] = [];
  for (const [index, tars] of stacks.entries()) {
    const [forked, block] = ['forked', 'block'].map((name) => join(directory, `${index}`, name));
    if (forked === undefined || block === undefined) throw new Error('no folders');
    for (const folder of [forked, block]) mkdirSync(folder, { recursive: true });
    await importIntoCims(tars, forked);
    try {
      await importIntoBlockCims(tars, block);
    } catch (error) {
      // Some whiteouts are refused there.
      if (!(error instanceof CimletError && error.code === 'corrupt')) throw error;
    }
    digests.push([forked, block].flatMap(digestsBelow));
  }
  return digests;
}

function digestsBelow(folder: string): string[] {
  return readdirSync(folder)
    .sort()
    .map(
      (name) =>
        `${name} ${createHash('sha256')
          .update(readFileSync(join(folder, name)))
          .digest('hex')}`,
    );
}

if (process.argv[1] === import.meta.filename) {
  const [, , input = '', directory = ''] = process.argv;
  const stacks = JSON.parse(readFileSync(input, 'utf8')) as string[][];
  const tars = stacks.map((stack) => stack.map((tar) => Buffer.from(tar, 'base64')));
  console.log(JSON.stringify(await digestsOfImports(tars, directory)));
}
