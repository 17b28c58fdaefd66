import { open } from 'node:fs/promises';
import { classify } from '../../errors.ts';
import { check, libc } from './libc.ts';

/**
 * Makes everything that was written to the file system which holds `path` durable. Cheaper than one fsync for each of
 * many files. https://man7.org/linux/man-pages/man2/sync.2.html
 */
export async function syncFilesystem(path: string): Promise<void> {
  const operation = `sync the file system of ${path}`;
  try {
    const handle = await open(path, 'r');
    try {
      check(operation, await libc.callAsync('syncfs', handle.fd));
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw classify(error, operation);
  }
}
