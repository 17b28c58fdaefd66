/** What others have on the same machine, and in a root, which nothing may touch. For a Windows process. */

import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { forkedImage } from '../../../src/hosts/windows/cim-paths.ts';
import { createWindowsHost } from '../../../src/hosts/windows/windows-host.ts';
import { openWindowsApi } from '../../../src/native/windows/windows.ts';
import { effectsOf } from './effects.ts';

const ROOT = 'C:\\others\\store';
const VOLUME = 'f0e1d2c3-b4a5-4697-8879-6a5b4c3d2e1f';
const PLACES = ['C:\\shown\\others', 'C:\\others\\place', `\\\\?\\Volume{${VOLUME}}\\Files`];
const OTHERS_FILES = ['snapshots\\notes.txt', 'cim-layers\\notes.txt', 'mounts\\notes.txt'];

/** A root of somebody else's with a writable mount, a CIM that he mounted himself, and a directory that he shows elsewhere. */
export async function makeForeign(): Promise<void> {
  const host = createWindowsHost({ root: ROOT });
  const effects = await effectsOf('ForkedCIM', ROOT, 'others');
  const mount = effects.find(({ name }) => name === 'mount writable ForkedCIM');
  await mount?.prepare(host);
  await mount?.run(host);
  const { cimfs, bindfilter } = openWindowsApi();
  const images = (await readdir(join(ROOT, 'cim-layers'))).filter((name) => name.endsWith('.cim'));
  await cimfs.mountImage(forkedImage(join(ROOT, 'cim-layers', images[0] ?? '')), 0, VOLUME);
  await mkdir('C:\\others\\target', { recursive: true });
  await writeFile('C:\\others\\target\\theirs.txt', 'theirs');
  await bindfilter.setupFilter('C:\\others\\place', 'C:\\others\\target', 0);
}

/** Files of nobody knows whom in a root. */
export async function putForeignFiles(root: string): Promise<void> {
  for (const name of OTHERS_FILES) {
    await mkdir(join(root, name, '..'), { recursive: true });
    await writeFile(join(root, name), 'theirs');
  }
}

/** All of it, with what is in it. */
export async function foreignFacts(): Promise<string[]> {
  const facts: string[] = [];
  for (const place of [...PLACES, ROOT])
    for (const entry of await readdir(place, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name);
      const isText = entry.isFile() && /\.(txt|json)$/.test(entry.name);
      facts.push(isText ? `${path}: ${await readFile(path, 'utf8')}` : path);
    }
  return facts.sort();
}
