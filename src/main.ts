/**
 * The composition root: chooses the host, wires it to the reconciler, and hands both to the command line. The only
 * place that asks which platform this is.
 */

import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { Services } from './cli/context.ts';
import { runCli } from './cli/program.ts';
import { CimletError } from './errors.ts';
import { createEmbeddedHost } from './hosts/embedded/embedded-host.ts';
import type { HostPlatform } from './images/types.ts';

const services: Services = {
  defaultRoot: defaultRoot(),
  platform: nativePlatform(),
  openHost(choice, root) {
    const kind = choice === 'auto' ? nativeHost() : choice;
    if (kind === 'embedded') return createEmbeddedHost({ root });
    throw new CimletError('unsupported-host', 'the windows host is not built yet', {
      hint: 'use --host embedded on Linux',
    });
  },
  readStandardInput: () => text(process.stdin),
};

function nativeHost(): 'windows' | 'embedded' {
  return process.platform === 'win32' ? 'windows' : 'embedded';
}

/** Nothing runs the images on the embedded host, so that any version of Windows will do there. */
function nativePlatform(): HostPlatform {
  const architecture = process.arch;
  if (process.platform !== 'win32') return { os: process.platform, architecture };
  return { os: 'windows', architecture, osVersion: release() };
}

function defaultRoot(): string {
  if (process.platform !== 'win32') return '/var/lib/cimlet';
  return join(process.env.ProgramData ?? 'C:\\ProgramData', 'cimlet');
}

function readVersion(): string {
  const manifest = new URL('../package.json', import.meta.url);
  const { version } = JSON.parse(readFileSync(manifest, 'utf8')) as { version: string };
  return version;
}

process.exitCode = await runCli({
  argv: process.argv.slice(2),
  env: process.env,
  version: readVersion(),
  services,
});
