import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { withPathLock } from '../../../src/hosts/embedded/path-lock.ts';
import { makeDirectory } from './fixture.ts';

it('who waits for a lock hears that nobody wants it any more, and takes it from nobody', async () => {
  const path = join(await makeDirectory(), 'scratch.ext4');
  writeFileSync(path, '');
  const released = Promise.withResolvers<void>();
  const held = Promise.withResolvers<void>();
  const holder = withPathLock(path, 'exclusive', 'hold', () => {
    held.resolve();
    return released.promise;
  });
  await held.promise;
  const stop = new AbortController();
  const waiting = withPathLock(path, 'shared', 'open snapshot "a"', async () => 'never', stop.signal);
  stop.abort();
  await expect(waiting).rejects.toMatchObject({ code: 'cancelled' });
  released.resolve();
  await holder;
  expect(await withPathLock(path, 'shared', 'open', async () => 'free', new AbortController().signal)).toBe(
    'free',
  );
});
