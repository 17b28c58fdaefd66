import { expect, it } from 'vitest';
import { KeyedLock } from '../../src/hosts/keyed-lock.ts';

it('runs one key in order, also after a failure, and others at once', async () => {
  const lock = new KeyedLock();
  const log: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = lock.run('a', async () => {
    await gate.promise;
    log.push('a1');
    throw new Error('a1 failed');
  });
  const second = lock.run('a', async () => void log.push('a2'));
  await lock.run('b', async () => void log.push('b'));
  gate.resolve();
  await expect(first).rejects.toThrow('a1 failed');
  await second;
  expect(log).toEqual(['b', 'a1', 'a2']);
});
