import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { acquireRootLock } from '../../src/state/root-lock.ts';

let root: string;
let holder: ChildProcess | undefined;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'cimlet-lock-test-'));
});
afterEach(async () => {
  if (holder !== undefined) await kill(holder);
  holder = undefined;
  rmSync(root, { recursive: true, force: true });
});

async function hold(): Promise<ChildProcess> {
  const program = join(import.meta.dirname, 'hold-lock.ts');
  const child = spawn(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', '--expose-gc', program, root],
    {
      stdio: ['pipe', 'pipe', 'inherit'],
    },
  );
  await once(child.stdout, 'data');
  return child;
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
}

describe('the lock of a root', () => {
  it('is refused while another process has it, naming that one', async () => {
    holder = await hold();
    expect(() => acquireRootLock(root, 'apply')).toThrowError(
      expect.objectContaining({
        code: 'busy',
        message: expect.stringMatching(new RegExp(`cimlet agent \\(pid ${holder.pid} on .*, since 20`)),
        hint: expect.stringContaining('stop it'),
      }),
    );
  });

  it('is free once its holder was killed', async () => {
    holder = await hold();
    await kill(holder);
    const lock = acquireRootLock(root, 'apply');
    expect(() => acquireRootLock(root, 'apply')).toThrowError(expect.objectContaining({ code: 'busy' }));
    lock.release();
  });

  it('is free after its release, which may be repeated', () => {
    const lock = acquireRootLock(join(root, 'new', 'root'), 'apply');
    lock.release();
    lock.release();
    expect(existsSync(join(root, 'new', 'root', 'owner.json'))).toBe(false);
    acquireRootLock(join(root, 'new', 'root'), 'apply').release();
  });
});
