/** What tests of sources share. */

import { mkdtempSync, realpathSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import type { Revision, Source } from '../../src/sources/source.ts';

/** A folder that is gone after the test. */
export function temporaryFolder(): string {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'cimlet-sources-')));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

export const NEVER: AbortSignal = new AbortController().signal;

/** A small sound manifest. */
export function imageManifest(name: string, path = '../images/hello'): string {
  return `apiVersion: cimlet.dev/v1alpha1\nkind: Image\nmetadata: {name: ${name}}\nspec: {source: {ociLayout: ${path}}}\n`;
}

/** The manifests of a revision as text by path. */
export function textsOf(revision: Revision): Record<string, string> {
  return Object.fromEntries(
    revision.manifests.map(({ relativeName, bytes }) => [relativeName, bytes.toString()]),
  );
}

/**
 * Follows a source's changes as an agent does, until what is there is as wanted. Syncs that fail are tried again at
 * the next change.
 */
export async function syncUntil(
  source: Source,
  isWanted: (revision: Revision) => boolean,
  start: () => unknown = () => undefined,
): Promise<Revision> {
  const ending = new AbortController();
  const changes = source.changes(ending.signal);
  try {
    await start();
    for await (const _ of changes) {
      const revision = await source.sync(NEVER).catch(() => undefined);
      if (revision !== undefined && isWanted(revision)) return revision;
    }
    throw new Error('the changes ended');
  } finally {
    ending.abort();
  }
}
