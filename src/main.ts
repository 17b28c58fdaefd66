/**
 * The composition root: chooses the host, wires it to the reconciler, and hands both to the command line. The only
 * place that asks which platform this is.
 */

import { readFileSync } from 'node:fs';
import { hostname, release } from 'node:os';
import { join } from 'node:path';
import { addAbortSignal } from 'node:stream';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import type { ServiceSupport, Services } from './cli/context.ts';
import { runCli } from './cli/program.ts';
import { CimletError, classify } from './errors.ts';
import { areEffectsHung } from './hosts/windows/hung-effects.ts';
import { windowsFeatures } from './hosts/windows/os-features.ts';
import { architectureName } from './images/platform.ts';
import type { HostPlatform } from './images/types.ts';
import { agentPipe, agentSocket } from './server/address.ts';

const services: Services = {
  defaultRoot: defaultRoot(),
  platform: nativePlatform(),
  hostLabels: {
    'cimlet.dev/os': process.platform === 'win32' ? 'windows' : process.platform,
    'cimlet.dev/arch': architectureName(process.arch),
    'cimlet.dev/hostname': hostname(),
  },
  async openHost(choice, root) {
    const kind = choice === 'auto' ? nativeHost() : choice;
    if (kind === 'embedded') {
      requireLinux();
      return (await import('./hosts/embedded/embedded-host.ts')).createEmbeddedHost({ root });
    }
    if (process.platform === 'win32')
      return (await import('./hosts/windows/windows-host.ts')).createWindowsHost({ root });
    throw new CimletError('unsupported-host', 'the windows host runs on Windows only', {
      hint: 'use --host embedded on Linux',
    });
  },
  agentAddress: process.platform === 'win32' ? agentPipe : agentSocket,
  service: serviceSupport(),
  ...(process.platform === 'linux' ? { isReaderGone: isStandardOutputUnread } : {}),
  readStandardInput,
};

async function readStandardInput(signal?: AbortSignal): Promise<string> {
  try {
    return await text(signal === undefined ? process.stdin : addAbortSignal(signal, process.stdin));
  } catch (error) {
    throw classify(error, 'read standard input');
  }
}

async function isStandardOutputUnread(): Promise<boolean> {
  const { isReaderGone } = await import('./native/linux/output.ts');
  return isReaderGone(process.stdout.fd);
}

function serviceSupport(): ServiceSupport | undefined {
  const program = [process.execPath, fileURLToPath(new URL('../bin/cimlet.cjs', import.meta.url))] as const;
  if (process.platform === 'linux')
    return { program, open: async () => (await import('./service/systemd.ts')).createSystemd() };
  if (process.platform !== 'win32') return undefined;
  return {
    program,
    open: async () => (await import('./service/windows-services.ts')).createWindowsServices(),
    enter: async (name) => (await import('./service/windows-service-process.ts')).enterWindowsService(name),
  };
}

function requireLinux(): void {
  const { platform } = process;
  if (platform === 'linux') return;
  if (platform === 'win32')
    throw new CimletError('unsupported-host', 'the embedded host runs on Linux only', {
      hint: 'use --host windows',
    });
  const system = platform === 'darwin' ? 'macOS' : platform;
  throw new CimletError('unsupported-host', `${system} is not supported: cimlet works on Windows and Linux`, {
    hint: 'run it in a container or virtual machine with Linux; validate, plan --offline and cim work here, too',
  });
}

function nativeHost(): 'windows' | 'embedded' {
  return process.platform === 'win32' ? 'windows' : 'embedded';
}

/** Windows images come first everywhere; nothing runs them on the embedded host, so that any version will do there. */
function nativePlatform(): HostPlatform {
  const platform = { os: 'windows', architecture: process.arch };
  if (process.platform !== 'win32') return platform;
  const osFeatures = windowsFeatures(process.env.SystemRoot ?? 'C:\\Windows');
  return { ...platform, osVersion: release(), osFeatures };
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
if (areEffectsHung()) process.exit();
