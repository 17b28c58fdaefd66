/** What the `image` commands share: the images of a root, registries, and the platform wanted. */

import { join } from 'node:path';
import { InvalidArgumentError, Option } from 'commander';
import type { EffectContext } from '../hosts/host.ts';
import { type BlobStore, openBlobStore } from '../images/blob-store.ts';
import type { CopyServices } from '../images/copy-image.ts';
import { openRegistries } from '../images/registry/registries.ts';
import type { PlatformWish } from '../images/types.ts';
import { acquireRootLock } from '../state/root-lock.ts';
import type { CliContext } from './context.ts';
import type { GlobalOptions } from './options.ts';
import { registrySettings } from './registry-settings.ts';
import { interruptible } from './signals.ts';
import { printable } from './text.ts';
import { openTransferProgress } from './transfer-progress.ts';

export interface ImageOptions extends GlobalOptions {
  platform?: PlatformWish;
  all?: boolean;
}

export const platformOption = () =>
  new Option(
    '--platform <os/architecture>',
    'the platform, when there are several: windows/amd64:10.0.26100',
  ).argParser(parsePlatform);

export function storeOf({ root }: GlobalOptions): BlobStore {
  return openBlobStore(join(root, 'images'));
}

/** `write`: with the root's lock, since only one process may write to its images. */
export async function withRegistries<T>(
  context: CliContext,
  options: GlobalOptions,
  mode: 'read' | 'write',
  use: (services: CopyServices) => Promise<T>,
): Promise<T> {
  const lock = mode === 'write' ? acquireRootLock(options.root, 'image') : undefined;
  const store = storeOf(options);
  const registries = openRegistries({
    ...registrySettings(context, options),
    store,
    mayWrite: mode === 'write',
  });
  try {
    return await use({ store, registries, openLayout: openBlobStore, host: context.services.platform });
  } finally {
    await registries.close();
    lock?.release();
  }
}

/** Work that takes long: can be interrupted, shows how far it is, and says what is worth knowing. */
export async function working<T>(
  context: CliContext,
  options: GlobalOptions,
  mode: 'read' | 'write',
  work: (services: CopyServices, effect: EffectContext) => Promise<T>,
): Promise<T> {
  const { terminal } = context;
  const shown = await openTransferProgress(terminal);
  const warn = (message: string) =>
    shown.say(`${terminal.paintError('yellow', 'warning:')} ${printable(message)}`);
  const run = (signal: AbortSignal) =>
    withRegistries(context, options, mode, (services) =>
      work(services, { signal, warn, progress: shown.handle }),
    );
  try {
    return await interruptible(context, run, shown.say);
  } finally {
    shown.close();
  }
}

function parsePlatform(text: string): PlatformWish {
  const [, os, architecture, variant, osVersion] =
    /^([a-z]+)\/([a-z0-9]+)(?:\/([a-z0-9]+))?(?::([0-9.]+))?$/.exec(text) ?? [];
  if (os === undefined)
    throw new InvalidArgumentError('Name it as windows/amd64, linux/arm64/v8 or windows/amd64:10.0.26100.');
  return Object.fromEntries(
    Object.entries({ os, architecture, variant, osVersion }).filter(([, value]) => value !== undefined),
  );
}
