/** A root opened for one command: host, state and engine together. */

import { createEngine, type Engine } from '../reconciler/engine.ts';
import { DEFAULT_CONCURRENCY } from '../reconciler/schedule.ts';
import { acquireRootLock } from '../state/root-lock.ts';
import { openState, type State } from '../state/state.ts';
import type { CliContext } from './context.ts';
import type { GlobalOptions } from './options.ts';
import { registrySettings } from './registry-settings.ts';
import { type ImageAccess, openImageAccess } from './resolve-image.ts';

export interface Session {
  engine: Engine;
  state: State;
  images: ImageAccess;
}

/** For commands that only look: writes nothing in the root, and needs no lock. */
export async function withReader<T>(
  context: CliContext,
  options: GlobalOptions,
  use: (session: Session) => Promise<T>,
): Promise<T> {
  return withState(context, options, openState(options.root, { readOnly: true }), 'read', use);
}

/** For commands that change things: takes the root's lock as `command`, and throws `busy` when another has it. */
export async function withWriter<T>(
  context: CliContext,
  options: GlobalOptions,
  command: string,
  use: (session: Session) => Promise<T>,
  open: (root: string) => State = (root) => openState(root, { readOnly: false }),
): Promise<T> {
  const lock = acquireRootLock(options.root, command);
  try {
    return await withState(context, options, open(options.root), 'write', use);
  } finally {
    lock.release();
  }
}

async function withState<T>(
  context: CliContext,
  options: GlobalOptions,
  state: State,
  store: 'read' | 'write',
  use: (session: Session) => Promise<T>,
): Promise<T> {
  const { services } = context;
  const images = openImageAccess({
    platform: services.platform,
    root: options.root,
    store,
    registry: registrySettings(context, options),
  });
  try {
    const host = await services.openHost(options.host, options.root);
    const concurrency = { ...DEFAULT_CONCURRENCY, ...options.concurrency };
    return await use({ engine: createEngine({ host, state, ...images, concurrency }), state, images });
  } finally {
    state.close();
    await images.close();
  }
}
