/** The program as users install it: emitted JavaScript, which needs no type stripping in each of its threads. */

import { cpSync, mkdirSync, symlinkSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { runPipeline } from './child.ts';

const REPOSITORY = resolve(import.meta.dirname, '..');

/** Returns the launcher to run. Beside the checkout: a dist folder in it would shadow the sources. */
export function installProgram(directory: string): string {
  mkdirSync(directory, { recursive: true });
  runPipeline('"$1/node_modules/.bin/tsc" -p "$1/tsconfig.build.json" --outDir "$2/dist"', [
    REPOSITORY,
    directory,
  ]);
  for (const name of ['bin', 'schemas', 'package.json'])
    cpSync(join(REPOSITORY, name), join(directory, name), { recursive: true });
  symlinkSync(join(REPOSITORY, 'node_modules'), join(directory, 'node_modules'));
  return join(directory, 'bin/cimlet.cjs');
}
