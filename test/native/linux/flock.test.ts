import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { type FileLock, tryLock } from '../../../src/native/linux/flock.ts';
import { hasTool, requireOrSkip } from '../../support/requirements.ts';

const hasFlock = requireOrSkip('flock', hasTool('flock'));

function makeDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'cimlet-flock-'));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  return directory;
}

async function take(path: string, kind: 'shared' | 'exclusive'): Promise<FileLock> {
  const lock = await tryLock(path, kind);
  if (lock === undefined) throw new Error(`${path} is locked`);
  return lock;
}

it('shares a lock, or has it alone, until it is released', async () => {
  const path = makeDirectory();
  const shared = [await take(path, 'shared'), await take(path, 'shared')];
  expect(await tryLock(path, 'exclusive')).toBeUndefined();
  for (const lock of shared) await lock.release();
  const alone = await take(path, 'exclusive');
  expect(await tryLock(path, 'shared')).toBeUndefined();
  await alone.release();
  await (await take(path, 'shared')).release();
});

it.runIf(hasFlock)('is what other programs mean by a lock', async () => {
  const path = makeDirectory();
  const elsewhere = () => execFileSync('flock', ['-n', path, 'true']);
  const lock = await take(path, 'shared');
  expect(elsewhere).toThrow();
  await lock.release();
  expect(elsewhere).not.toThrow();
});

it('says what is not there', async () => {
  await expect(tryLock('/nowhere/at/all', 'shared')).rejects.toMatchObject({ code: 'not-found' });
});
