/** The revision in force, kept in a file so that it is in force after a restart too. */

import { createHash, randomUUID } from 'node:crypto';
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { classify } from '../errors.ts';
import type { Revision } from './source.ts';

export interface AcceptedStore {
  save(revision: Revision): Promise<void>;
  /** Undefined when there is none, by this configuration. */
  load(): Promise<Revision | undefined>;
}

interface StoredRevision {
  configuration: string;
  name: string;
  directory: string;
  warnings: string[];
  manifests: { name: string; path: string; relativeName: string; base64: string }[];
}

/** `configuration` is what decides which revisions a source has: with another one, the stored revision is none of its. */
export function createAcceptedStore(file: string, configuration: unknown): AcceptedStore {
  const digest = createHash('sha256').update(JSON.stringify(configuration)).digest('hex');
  return {
    async save({ name, directory, warnings, manifests }) {
      const stored: StoredRevision = {
        configuration: digest,
        name,
        directory,
        warnings: [...warnings],
        manifests: manifests.map(({ bytes, ...place }) => ({ ...place, base64: bytes.toString('base64') })),
      };
      try {
        await writeDurably(file, JSON.stringify(stored));
      } catch (error) {
        throw classify(error, `write ${file}`);
      }
    },
    async load() {
      const stored = await read(file);
      if (stored?.configuration !== digest) return undefined;
      const { name, directory, warnings, manifests } = stored;
      const decoded = manifests.map(({ base64, ...place }) => ({
        ...place,
        bytes: Buffer.from(base64, 'base64'),
      }));
      return { name, directory, warnings, manifests: decoded };
    },
  };
}

async function read(file: string): Promise<StoredRevision | undefined> {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as StoredRevision;
  } catch (error) {
    // A file that is no JSON is none that was saved to the end.
    if (error instanceof SyntaxError || (error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw classify(error, `read ${file}`);
  }
}

/** The file before, or this one, whatever happens. */
async function writeDurably(file: string, text: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  const temporary = `${file}.tmp-${randomUUID()}`;
  try {
    const handle = await open(temporary, 'wx', 0o600);
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } finally {
    await rm(temporary, { force: true });
  }
}
