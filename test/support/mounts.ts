import { execFileSync } from 'node:child_process';
import { realpathSync } from 'node:fs';
import { readMountInfo } from '../../src/hosts/embedded/mount-info.ts';

/** Mount points at or below a directory, in mount order. */
export function mountsBelow(directory: string): string[] {
  const real = realpathSync(directory);
  return readMountInfo()
    .map(({ mountPoint }) => mountPoint)
    .filter((point) => point === real || point.startsWith(`${real}/`));
}

/** Unmounts whatever a test left below its directory. */
export function unmountBelow(directory: string): void {
  for (const point of mountsBelow(directory).reverse()) execFileSync('umount', ['-l', point]);
}
