/** Tells when something in folders changes. The one file that knows chokidar. */

import { dirname, join } from 'node:path';
import { watch } from 'chokidar';

export interface FolderWatch {
  /** Watches these folders too, without what is below their subfolders, and no others. */
  follow(folders: Iterable<string>): void;
  close(): Promise<void>;
}

export interface FolderWatchOptions {
  /** Absolute; may be a link, and needn't be there yet. */
  folder: string;
  /** Milliseconds between looks, where the system tells nothing of changes (network shares); else it is asked to tell. */
  pollInterval?: number | undefined;
  onChange: () => void;
}

/**
 * Every folder is watched on its own and links are not followed: which folders the manifests are in is known, and
 * links may lead in circles. What chokidar makes of an event doesn't matter, as the folder is read again anyway;
 * so its raw events count too: a ConfigMap's `..data`, renamed over the one before, is one of those.
 */
export function watchFolder({ folder, pollInterval, onChange }: FolderWatchOptions): FolderWatch {
  const parent = dirname(folder);
  const followed = new Set<string>();
  /** The parent is watched for the folder itself being made, removed, or a link that is set anew. */
  const isNeighbour = (path: string): boolean =>
    dirname(path) === parent && path !== folder && path !== parent;
  const watcher = watch([parent, folder], {
    ignoreInitial: true,
    followSymlinks: false,
    depth: 0,
    ignored: (path) => isNeighbour(path) && !followed.has(path),
    ...(pollInterval === undefined
      ? { usePolling: false }
      : { usePolling: true, interval: pollInterval, binaryInterval: pollInterval }),
  });
  watcher.on('all', onChange);
  watcher.on('raw', (event, name, details) => {
    const { watchedPath } = details as { watchedPath?: string };
    const path = watchedPath === undefined || name === null ? undefined : join(watchedPath, name);
    const isWatched = path === folder || (path !== undefined && followed.has(path));
    if (isWatched && event === 'rename') renew(path);
    if (isWatched || path === undefined || watchedPath !== parent) onChange();
  });
  // What happened before the watch stood was seen by nobody.
  watcher.on('ready', onChange);
  // A folder that can't be watched is read by interval all the same, and reading it says what is wrong.
  watcher.on('error', onChange);

  /** chokidar goes on with what had this name when it began: a folder that is moved away and back is lost to it. */
  function renew(path: string): void {
    watcher.unwatch(path);
    watcher.add(path);
  }

  return {
    follow(folders) {
      const wanted = new Set(folders);
      wanted.delete(folder);
      wanted.delete(parent);
      const gone = [...followed].filter((each) => !wanted.has(each));
      const added = [...wanted].filter((each) => !followed.has(each));
      for (const each of gone) followed.delete(each);
      for (const each of added) followed.add(each);
      if (gone.length > 0) watcher.unwatch(gone);
      if (added.length === 0) return;
      watcher.add(added);
      onChange();
    },
    close: () => watcher.close(),
  };
}
