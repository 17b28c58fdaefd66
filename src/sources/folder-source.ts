/** A folder on this machine, or on a share it has mounted, as a source of manifests. */

import { join, resolve } from 'node:path';
import { parseDuration } from '../manifests/quantities.ts';
import type { FolderSource as FolderConfig } from '../manifests/types.gen.ts';
import { createAcceptedStore } from './accepted-store.ts';
import { createChangeFeed } from './change-feed.ts';
import { createFileFilter } from './file-filter.ts';
import { createQueue } from './one-at-a-time.ts';
import { ManifestReader } from './read-manifests.ts';
import { runSync } from './run-sync.ts';
import type { Revision, Source, SourceOptions } from './source.ts';
import { type FolderWatch, watchFolder } from './watch-folder.ts';

export interface FolderSourceConfig {
  name: string;
  folder: FolderConfig;
  /** A duration such as `1m`. */
  interval?: string | undefined;
}

const DEFAULT_INTERVAL = '1m';
const DEFAULT_POLL_INTERVAL = '5s';

/** Watches from the first `changes()` on; nothing is read before `sync()`. */
export function createFolderSource(
  { name, folder, interval = DEFAULT_INTERVAL }: FolderSourceConfig,
  { cacheDirectory, baseDirectory }: SourceOptions,
): Source {
  const path = resolve(baseDirectory, folder.path);
  const isPolled = folder.watch === 'Polling';
  const reader = new ManifestReader({
    folder: path,
    takes: createFileFilter(folder),
    trustsTimes: !isPolled,
  });
  const feed = createChangeFeed({ interval: parseDuration(interval) });
  const inOrder = createQueue();
  const store = createAcceptedStore(join(cacheDirectory, 'accepted.json'), {
    path,
    include: folder.include,
    ignore: folder.ignore,
  });
  const closing = new AbortController();
  let watching: FolderWatch | undefined;
  let folders: string[] = [];
  let latest: Revision | undefined;

  function startWatching(): void {
    watching ??= watchFolder({
      folder: path,
      pollInterval: isPolled ? parseDuration(folder.pollInterval ?? DEFAULT_POLL_INTERVAL) : undefined,
      onChange: feed.touch,
    });
    watching.follow(folders);
  }

  async function sync(signal: AbortSignal): Promise<Revision> {
    const reading = await reader.read(signal);
    folders = reading.folders;
    watching?.follow(folders);
    const revision = `folder@sha256:${reading.digest}`;
    if (latest?.name !== revision) {
      latest = { name: revision, directory: path, manifests: reading.manifests, warnings: [] };
    }
    return latest;
  }

  return {
    name,
    sync: (signal) => inOrder(() => runSync({ name, signals: [signal, closing.signal] }, sync)),
    accept: (revision) => inOrder(() => store.save(revision)),
    accepted: () => inOrder(() => store.load()),
    changes(signal) {
      startWatching();
      return feed.changes(signal);
    },
    touch: feed.touch,
    async close() {
      closing.abort();
      feed.close();
      await inOrder(async () => undefined);
      await watching?.close();
    },
  };
}
