/** Manifests in temporary folders, and problems as one line each. */

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { loadManifests } from '../../src/manifests/load.ts';
import type { LoadedManifests, Problem } from '../../src/manifests/resources.ts';

/** Runs with a folder that holds the files; it is removed afterwards. */
export async function withFolder<T>(
  files: Record<string, string | Uint8Array>,
  run: (folder: string) => Promise<T>,
): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'cimlet-manifests-'));
  try {
    for (const [name, content] of Object.entries(files)) {
      await mkdir(dirname(join(folder, name)), { recursive: true });
      await writeFile(join(folder, name), content);
    }
    return await run(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Loads text as standard input. */
export function loadText(text: string): Promise<LoadedManifests> {
  return loadManifests(['-'], { readStdin: async () => text });
}

/** `file:line:column: [code] message (suggestion)`, with the folder left out. */
export function formatProblem(problem: Problem, folder = ''): string {
  const { position, code, message, suggestion } = problem;
  const place = `${position.file}:${position.line}:${position.column}`;
  const hint = suggestion === undefined ? '' : ` (${suggestion})`;
  const line = `${place}: [${code}] ${message}${hint}`;
  return folder === '' ? line : line.replaceAll(`${folder}/`, '');
}

export async function problemsOf(text: string): Promise<string[]> {
  return (await loadText(text)).problems.map((problem) => formatProblem(problem));
}

/** A manifest as YAML flow, so that a test can say only what it is about. */
export function manifest(kind: string, spec: unknown, metadata: unknown = { name: 'app' }): string {
  return JSON.stringify({ apiVersion: 'cimlet.dev/v1alpha1', kind, metadata, spec });
}
