/**
 * Puts every module that programs and threads of tests load into one archive, with types stripped, once for each state
 * of the sources (vitest's globalSetup). load.cjs says why, and takes them from there.
 */

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import {
  glob,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { stripTypeScriptTypes } from 'node:module';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import type { TestProject } from 'vitest/node';

const REPOSITORY = resolve(import.meta.dirname, '../../..');
const CACHE = join(REPOSITORY, 'node_modules/.cache/cimlet-modules');
const UNUSED_MS = 3_600_000;
const RECORD = join(import.meta.dirname, 'record.cjs');

interface Recorded {
  /** `<import or require> <path of the parent> <specifier>` -> path */
  resolved: Record<string, string>;
  /** `<import or require> <path>` -> the module */
  modules: Record<string, { format: string; source: string }>;
}

export default async function setup(project: TestProject): Promise<void> {
  // Nor does cimlet itself run on a Node that old.
  if (stripTypeScriptTypes === undefined) return;
  await useArchive();
  project.onTestsRerun(useArchive);
}

async function useArchive(): Promise<void> {
  const sources: string[] = [];
  for await (const path of glob('{src,test,examples}/**/*.ts', { cwd: REPOSITORY })) sources.push(path);
  const name = await nameOf([...sources.sort(), 'package-lock.json', 'test/support/modules/record.cjs']);
  await mkdir(CACHE, { recursive: true });
  if (!existsSync(join(CACHE, name))) await makeArchive(join(CACHE, name), sources);
  process.env.CIMLET_TEST_MODULES = name;
  const now = new Date();
  await utimes(join(CACHE, name), now, now);
  await removeUnused();
}

/** Each change of the sources leaves one behind. */
async function removeUnused(): Promise<void> {
  for (const name of await readdir(CACHE)) {
    // Another run's draft may be gone by now.
    const stats = statSync(join(CACHE, name), { throwIfNoEntry: false });
    if (stats !== undefined && Date.now() - stats.mtimeMs > UNUSED_MS)
      await rm(join(CACHE, name), { recursive: true, force: true });
  }
}

async function nameOf(paths: readonly string[]): Promise<string> {
  const hash = createHash('sha256').update(process.version);
  for (const path of paths) {
    const { mtimeMs, size } = await stat(join(REPOSITORY, path));
    hash.update(`${path} ${mtimeMs} ${size}\n`);
  }
  return hash.digest('hex').slice(0, 16);
}

/** Of several at a time, the first one stays. */
async function makeArchive(place: string, sources: readonly string[]): Promise<void> {
  const draft = await mkdtemp(join(CACHE, 'tmp-'));
  try {
    const { resolved, modules } = await recordPackages(join(draft, 'recorded.json'));
    for (const path of sources) {
      const source = stripTypeScriptTypes(await readFile(join(REPOSITORY, path), 'utf8'));
      modules[`import ${path}`] = { format: 'module', source };
    }
    await writeArchive(draft, { resolved, modules });
    await rename(draft, place);
  } catch (error) {
    if (!existsSync(place)) throw error;
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
}

/** What the program loads when it starts. */
async function recordPackages(file: string): Promise<Recorded> {
  const args = ['--require', RECORD, join(REPOSITORY, 'src/main.ts'), '--version'];
  const env = { ...process.env, NODE_OPTIONS: '', CIMLET_TEST_RECORD: file };
  await promisify(execFile)(process.execPath, args, { env });
  const recorded = JSON.parse(await readFile(file, 'utf8')) as Recorded;
  await rm(file);
  return recorded;
}

async function writeArchive(folder: string, { resolved, modules }: Recorded): Promise<void> {
  const parts: Buffer[] = [];
  const places: Record<string, { format: string; offset: number; length: number }> = {};
  let offset = 0;
  for (const [key, { format, source }] of Object.entries(modules)) {
    const part = Buffer.from(source);
    places[key] = { format, offset, length: part.length };
    parts.push(part);
    offset += part.length;
  }
  await writeFile(join(folder, 'sources'), Buffer.concat(parts));
  await writeFile(join(folder, 'index.json'), JSON.stringify({ resolved, modules: places }));
}
