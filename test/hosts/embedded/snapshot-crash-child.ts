/**
 * Takes a snapshot through its life, and kills itself at the step that its arguments say: a step is a call that changes a file system or the
 * mount table. Arguments: root, JSON file, number of the step; 0 for none, then the number of steps is printed, as JSON, with those that give a
 * layer's files their names before it is there.
 */

import fs from 'node:fs';
import promises from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { basename } from 'node:path';

const [root = '', work = '', at = '0'] = process.argv.slice(2);
let steps = 0;
const naming: number[] = [];
function step(): void {
  if (++steps === Number(at)) process.kill(process.pid, 'SIGKILL');
}

/** Whoever calls it takes a step first. */
function count<Holder extends object>(holder: Holder, name: keyof Holder): void {
  const original = holder[name] as (...args: unknown[]) => unknown;
  holder[name] = ((...args: unknown[]) => {
    step();
    const isUnpublished = (arg: unknown) => typeof arg === 'string' && basename(arg).startsWith('tmp-');
    if (name === 'renameSync' && args.every(isUnpublished)) naming.push(steps);
    return original.apply(holder, args);
  }) as Holder[keyof Holder];
}
for (const name of ['mkdir', 'rename', 'rm', 'writeFile', 'rmdir'] as const) count(promises, name);
for (const name of ['ftruncateSync', 'renameSync', 'mkdirSync'] as const) count(fs, name);
syncBuiltinESMExports();

const { libc } = await import('../../../src/native/linux/libc.ts');
count(libc, 'callAsync');
const { createEmbeddedHost } = await import('../../../src/hosts/embedded/embedded-host.ts');
const { takeThroughLife } = await import('./snapshot-life.ts');
await takeThroughLife(createEmbeddedHost({ root }), JSON.parse(fs.readFileSync(work, 'utf8')));
process.stdout.write(JSON.stringify({ steps, naming }));
