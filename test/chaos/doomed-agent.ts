/**
 * The program, with the embedded host of Linux, which ends by SIGKILL at a transition: the file that CIMLET_DIE_AT names
 * holds `before <effect>` or `after <effect>`, an effect of the host.
 */

import { readFileSync } from 'node:fs';
import { text } from 'node:stream/consumers';
import { runCli } from '../../src/cli/program.ts';
import { createEmbeddedHost } from '../../src/hosts/embedded/embedded-host.ts';
import type { Host } from '../../src/hosts/host.ts';
import { agentSocket } from '../../src/server/address.ts';

const file = process.env.CIMLET_DIE_AT ?? '';

function dieAt(transition: string): void {
  if (readFileSync(file, 'utf8') === transition) process.kill(process.pid, 'SIGKILL');
}

function doomed(host: Host): Host {
  return new Proxy(host, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== 'function') return value;
      return async (...args: unknown[]) => {
        dieAt(`before ${String(name)}`);
        const result: unknown = await value.apply(target, args);
        dieAt(`after ${String(name)}`);
        return result;
      };
    },
  });
}

process.exitCode = await runCli({
  argv: process.argv.slice(2),
  env: process.env,
  version: '0.0.0-chaos',
  services: {
    defaultRoot: '/nowhere',
    platform: { os: 'windows', architecture: process.arch },
    openHost: async (_choice, root) => doomed(createEmbeddedHost({ root })),
    hostLabels: {},
    agentAddress: agentSocket,
    readStandardInput: () => text(process.stdin),
  },
});
