/** Worlds in which the product runs as a Windows process: a Wine prefix with the contract doubles in its System32. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, watch } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { COMPILE_CACHE } from './program.ts';
import { DOUBLES, WINE, WINE_SERVER, windowsTools, wineEnvironment } from './windows-tools.ts';

const MODULE_LOADER = join(import.meta.dirname, 'modules/load.cjs');

export interface WorldOptions {
  /** What the system says it is. Default: 27800.1000, a build on which every format works. */
  build?: number;
  revision?: number;
  /** DLLs to put into System32, without `.dll`. Default: every double. */
  doubles?: readonly string[];
  /** Services run Node too: whatever starts them gives them the system's environment alone. */
  services?: boolean;
}

export interface NativeCall {
  dll: string;
  call: string;
  /** The Windows process ID. */
  process: number;
  args: Record<string, unknown>;
  /** Calls of the process that were under way when it began, itself included. */
  concurrent: number;
  /** As `0x%08x`; undefined when a fault ended the call. */
  result?: string;
  fault?: string;
}

export interface Fault {
  /** A function's name, or `*`. */
  call: string;
  /** The nth call from now on; 0 is every one. Default 1. */
  nth?: number;
  /** Before the work is done, or after it; `hang` lasts until `release`. */
  action: 'fail' | 'fail-after' | 'hang' | 'hang-after' | 'kill' | 'kill-after';
  /** An HRESULT or Win32 error, as the function returns. */
  code?: number;
}

export interface WindowsWorld {
  /** Where its drive C: is on this machine. */
  readonly drive: string;
  /** Runs TypeScript or JavaScript with Node for Windows. The world's owner ends it with the world at the latest. */
  start(options: WindowsProcessOptions): Promise<WindowsProcess>;
  /** Calls of all doubles so far, in the order in which they returned. */
  calls(): Promise<NativeCall[]>;
  forgetCalls(): Promise<void>;
  /** Waits for a call that has returned, or that a fault has struck. */
  untilCall(isWanted: (call: NativeCall) => boolean): Promise<NativeCall>;
  /** Replaces what was planned. */
  plan(faults: readonly Fault[]): Promise<void>;
  /** Lets calls that hang go on. */
  release(): Promise<void>;
  /** Ends every process of the world, and removes it. */
  close(): Promise<void>;
}

export interface WindowsProcessOptions {
  /** A path on this machine. */
  script: string;
  args?: readonly string[];
  env?: Record<string, string>;
  /** A path on this machine; the world's C:\ unless told. */
  cwd?: string;
  /** What it finds on standard input. */
  input?: string;
  signal?: AbortSignal;
}

export interface ProcessResult {
  code: number | null;
  stdout: string;
  stderr: string;
}

/**
 * Its standard streams are files: Node for Windows can't open as pipes what Wine makes of this system's. What is to be
 * said both ways goes over a socket (windows-channel.ts).
 */
export interface WindowsProcess {
  readonly stdoutFile: string;
  readonly stderrFile: string;
  /** When it has ended. */
  result(): Promise<ProcessResult>;
  /** As a power cut would: no handler runs. */
  kill(): Promise<void>;
}

/** The path of a file of this machine, as a Windows process names it. */
export function windowsPath(path: string): string {
  return `Z:${path.replaceAll('/', '\\')}`;
}

export async function openWindowsWorld(options: WorldOptions = {}): Promise<WindowsWorld> {
  const prefix = await mkdtemp(join(tmpdir(), 'cimlet-windows-'));
  try {
    await furnish(prefix, options);
  } catch (error) {
    await rm(prefix, { recursive: true, force: true });
    throw error;
  }
  const { node, modules } = await windowsTools();
  return new World(prefix, node, modules);
}

/** Starts a process and waits for its end. */
export async function runWindowsProcess(
  world: WindowsWorld,
  options: WindowsProcessOptions,
): Promise<ProcessResult> {
  return (await world.start(options)).result();
}

/** A copy of the fresh prefix whose files are links: 0.1 s and no disk. Only the registry is a copy. */
async function furnish(prefix: string, options: WorldOptions): Promise<void> {
  const tools = await windowsTools();
  await spawnAndWait('cp', ['-as', join(tools.prefix, 'drive_c'), join(prefix, 'drive_c')]);
  await mkdir(join(prefix, 'dosdevices'));
  await symlink('../drive_c', join(prefix, 'dosdevices/c:'));
  await symlink('/', join(prefix, 'dosdevices/z:'));
  for (const name of ['user.reg', 'userdef.reg', '.update-timestamp'])
    await copyFile(join(tools.prefix, name), join(prefix, name));
  const registry = await readFile(join(tools.prefix, 'system.reg'), 'utf8');
  const { build = 27800, revision = 1000 } = options;
  const ofServices = options.services === true ? nodeEnvironment(tools.modules) : {};
  await writeFile(
    join(prefix, 'system.reg'),
    `${withEnvironment(withBuild(registry, build, revision), ofServices)}\n${SERVICES_TIMEOUT}`,
  );
  await mkdir(join(prefix, 'drive_c/doubles'));
  const wanted = options.doubles?.map((name) => `${name}.dll`) ?? (await readdir(tools.doubles));
  const dlls = new Set([...wanted, 'volumes.dll']);
  for (const dll of dlls) {
    const place = join(prefix, 'drive_c/windows/system32', dll);
    await rm(place, { force: true });
    await copyFile(join(tools.doubles, dll), place);
  }
}

/** Wine takes its version from here, as programs do. */
function withBuild(registry: string, build: number, revision: number): string {
  const section = '[Software\\\\Microsoft\\\\Windows NT\\\\CurrentVersion]';
  const start = registry.indexOf(section);
  const end = registry.indexOf('\n\n', start);
  if (start === -1) throw new Error(`the Wine prefix has no ${section}`);
  const changed = registry
    .slice(start, end)
    .replace(/"CurrentBuild"=.*/, `"CurrentBuild"="${build}"`)
    .replace(
      /"CurrentBuildNumber"=.*/,
      `"CurrentBuildNumber"="${build}"\n"UBR"=dword:${revision.toString(16).padStart(8, '0')}`,
    );
  return registry.slice(0, start) + changed + registry.slice(end);
}

/** For a service to answer: Wine gives it 10 s, Windows 30. In milliseconds. */
const SERVICES_TIMEOUT = `[System\\\\CurrentControlSet\\\\Control]
"ServicesPipeTimeout"="600000"
`;

/** Variables of the system, which processes have that nobody of ours started. */
function withEnvironment(registry: string, variables: Record<string, string>): string {
  const section = /^\[System\\\\CurrentControlSet\\\\Control\\\\Session Manager\\\\Environment\].*\n/m;
  if (!section.test(registry)) throw new Error('the Wine prefix has no system environment');
  const lines = Object.entries(variables).map(
    ([name, value]) => `"${name}"="${value.replaceAll('\\', '\\\\')}"\n`,
  );
  return registry.replace(section, (found) => found + lines.join(''));
}

/** What Node and its modules need in any process of a world: not as arguments, which threads and children have of their own. */
function nodeEnvironment(modules: string): Record<string, string> {
  const preloads = [join(DOUBLES, 'preload.cjs'), MODULE_LOADER].map(
    (path) => `--require ${windowsPath(path).replaceAll('\\', '/')}`,
  );
  return {
    NODE_PATH: windowsPath(modules),
    NODE_COMPILE_CACHE: windowsPath(COMPILE_CACHE),
    NODE_SKIP_PLATFORM_CHECK: '1',
    NODE_OPTIONS: `--disable-warning=ExperimentalWarning ${preloads.join(' ')}`,
    CIMLET_TEST_MODULES: process.env.CIMLET_TEST_MODULES ?? '',
  };
}

class World implements WindowsWorld {
  readonly drive: string;
  readonly #prefix: string;
  readonly #node: string;
  readonly #modules: string;
  readonly #running = new Set<ChildProcess>();

  constructor(prefix: string, node: string, modules: string) {
    this.drive = join(prefix, 'drive_c');
    this.#prefix = prefix;
    this.#node = node;
    this.#modules = modules;
  }

  async start(options: WindowsProcessOptions): Promise<WindowsProcess> {
    const { script, args = [], env = {}, cwd = this.drive, input = '', signal } = options;
    const folder = await mkdtemp(join(this.#prefix, 'process-'));
    const files = {
      input: join(folder, 'stdin'),
      stdout: join(folder, 'stdout'),
      stderr: join(folder, 'stderr'),
    };
    await writeFile(files.input, input);
    const streams = [openSync(files.input, 'r'), openSync(files.stdout, 'w'), openSync(files.stderr, 'w')];
    try {
      const child = spawn(WINE, [this.#node, windowsPath(script), ...args], {
        cwd,
        env: { ...wineEnvironment(this.#prefix), ...nodeEnvironment(this.#modules), NO_COLOR: '1', ...env },
        stdio: streams,
        killSignal: 'SIGKILL',
        ...(signal === undefined ? {} : { signal }),
      });
      this.#running.add(child);
      child.once('exit', () => this.#running.delete(child));
      return new WorldProcess(child, files);
    } finally {
      for (const stream of streams) closeSync(stream);
    }
  }

  async calls(): Promise<NativeCall[]> {
    const text = await readFileIfAny(join(this.drive, 'doubles/calls.jsonl'));
    // The last line may be written just now.
    return text
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as NativeCall);
  }

  async untilCall(isWanted: (call: NativeCall) => boolean): Promise<NativeCall> {
    const watcher = watch(join(this.drive, 'doubles'));
    try {
      for (;;) {
        // Listened to before it is read, so that nothing is missed between.
        const change = once(watcher, 'change');
        const found = (await this.calls()).find(isWanted);
        if (found !== undefined) return found;
        await change;
      }
    } finally {
      watcher.close();
    }
  }

  async forgetCalls(): Promise<void> {
    await rm(join(this.drive, 'doubles/calls.jsonl'), { force: true });
  }

  async plan(faults: readonly Fault[]): Promise<void> {
    const lines = faults.map(
      ({ call, nth = 1, action, code = 0 }) => `${call} ${nth} ${action} ${(code >>> 0).toString(16)}\n`,
    );
    await rm(join(this.drive, 'doubles/release'), { force: true });
    await writeFile(join(this.drive, 'doubles/faults.txt'), lines.join(''));
  }

  async release(): Promise<void> {
    await writeFile(join(this.drive, 'doubles/release'), '');
  }

  async close(): Promise<void> {
    const ended = [...this.#running].map((child) => once(child, 'exit'));
    const env = wineEnvironment(this.#prefix);
    for (const child of this.#running) child.kill('SIGKILL');
    await Promise.all(ended);
    // Exit 1: no server was running.
    await spawnAndWait(WINE_SERVER, ['--kill'], env, [0, 1]);
    await spawnAndWait(WINE_SERVER, ['--wait'], env);
    await rm(this.#prefix, { recursive: true, force: true });
  }
}

class WorldProcess implements WindowsProcess {
  readonly stdoutFile: string;
  readonly stderrFile: string;
  readonly #exit: Promise<number | null>;
  readonly #child: ChildProcess;

  constructor(child: ChildProcess, files: { stdout: string; stderr: string }) {
    this.#child = child;
    this.stdoutFile = files.stdout;
    this.stderrFile = files.stderr;
    this.#exit = new Promise((done, fail) => {
      child.once('error', (error) => (error.name === 'AbortError' ? undefined : fail(error)));
      child.once('exit', done);
    });
    // Whoever never asks for the result needn't hear of its failure.
    this.#exit.catch(() => undefined);
  }

  async result(): Promise<ProcessResult> {
    const code = await this.#exit;
    const [stdout, stderr] = await Promise.all([
      readFile(this.stdoutFile, 'utf8'),
      readFile(this.stderrFile, 'utf8'),
    ]);
    return { code, stdout, stderr };
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exit;
  }
}

async function readFileIfAny(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}

async function spawnAndWait(
  file: string,
  args: readonly string[],
  env?: Record<string, string>,
  allowed: readonly number[] = [0],
): Promise<void> {
  const child = spawn(file, args, {
    stdio: ['ignore', 'ignore', 'inherit'],
    ...(env === undefined ? {} : { env }),
  });
  const [code] = await once(child, 'exit');
  if (!allowed.includes(code as number)) throw new Error(`${file} ${args.join(' ')}: exit ${code}`);
}
