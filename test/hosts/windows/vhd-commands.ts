/** Command lines of `cimlet vhd`, read as JSON from standard input, in one Windows process. After each comes its exit code in a line. */

import { text } from 'node:stream/consumers';
import type { Services } from '../../../src/cli/context.ts';
import { runCli } from '../../../src/cli/program.ts';

const commands = JSON.parse(await text(process.stdin)) as string[][];
for (const argv of commands) {
  const code = await runCli({
    argv: ['vhd', ...argv],
    env: process.env,
    version: 'test',
    services: { defaultRoot: 'C:\\store' } as Services,
  });
  console.log(`exit ${code}`);
}
