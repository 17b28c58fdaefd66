/** The program on a terminal (in tmux), cut off by its reader, and interrupted. */

import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { makeExampleImage } from '../../examples/image.ts';
import { hasTool, requireOrSkip } from '../support/requirements.ts';
import { runCimlet } from './run-cimlet.ts';

const LAUNCHER = resolve(import.meta.dirname, '../../bin/cimlet.cjs');
const CIMLET = `'${process.execPath}' '${LAUNCHER}'`;

let work: string;

beforeAll(async () => {
  work = realpathSync(mkdtempSync(join(tmpdir(), 'cimlet-terminal-')));
  mkdirSync(join(work, 'manifests'));
  await makeExampleImage(join(work, 'images'));
  writeFileSync(
    join(work, 'manifests/app.yaml'),
    `apiVersion: cimlet.dev/v1alpha1
kind: Image
metadata: { name: app }
spec: { source: { ociLayout: ../images/hello }, platform: { os: windows, architecture: amd64 } }
---
apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: { name: view }
spec: { image: app, path: ${join(work, 'view')}, view: Extracted }
`,
  );
});

afterAll(async () => {
  await runCimlet(['delete', '-f', join(work, 'manifests'), '--root', join(work, 'root'), '--yes']);
  rmSync(work, { recursive: true, force: true });
});

describe.runIf(requireOrSkip('tmux', hasTool('tmux')))('on a terminal', () => {
  let sessions = 0;
  const socketName = () => `cimlet-test-${process.pid}-${sessions}`;
  const tmux = (...args: string[]) =>
    execFileSync('tmux', ['-L', socketName(), '-f', '/dev/null', ...args], {
      encoding: 'utf8',
      timeout: 30_000,
    });

  /** Runs a command line in a window of that size, types keys into it, and returns what the screen shows at its end. */
  function onScreen(command: string, keys: string[], columns: number): string {
    // A server of its own: one that is going away may still hold the socket.
    sessions++;
    const line = `unset CI; cd '${work}'; ${command}; echo "exit $?"; tmux wait-for -S ended; read -r _`;
    tmux('new-session', '-d', '-x', String(columns), '-y', '50', '-s', 'test', 'sh', '-c', line);
    for (const key of keys) tmux('send-keys', '-t', 'test', key);
    tmux('wait-for', 'ended');
    return tmux('capture-pane', '-p', '-t', 'test');
  }

  afterEach(() => {
    spawnSync('tmux', ['-L', socketName(), 'kill-server']);
  });

  const apply = `${CIMLET} apply -f manifests --root root`;

  test('apply asks, and takes no for an answer', () => {
    const screen = onScreen(apply, ['n', 'Enter'], 80);
    expect(screen).toContain('Apply these changes? [y/N]');
    expect(screen).toMatch(/Nothing was done\.\nexit 1\n/);
  });

  test.each([80, 120])('apply shows a tree of what was done, at %d columns', (columns) => {
    const screen = onScreen(
      `${CIMLET} delete -f manifests --root root --yes >/dev/null; ${apply}`,
      ['y', 'Enter'],
      columns,
    );
    expect(screen).toMatch(/^✓ Mount\/view +\d/m);
    expect(screen).toMatch(/^✓ ├─ Image\/app +\d/m);
    expect(screen).toMatch(/^✓ └─ Merge\/[0-9a-f]{12} +\d/m);
    expect(screen).toMatch(/^✓ {4}└─ Snapshot\/[0-9a-f]{12} +\d/m);
    expect(screen).toMatch(/\nApplied: 5 succeeded, 0 failed, 0 skipped in \d+\.\d s\.\nexit 0\n/);
    // Drawn over, not one below the other.
    expect(screen.match(/^. Mount\/view/gm)).toHaveLength(1);
  });
});

test('a reader that goes away is no error', () => {
  const { status, stderr } = spawnSync('bash', ['-c', `set -o pipefail; ${CIMLET} doctor | :`], {
    encoding: 'utf8',
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
});

test.each([
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)('%s stops at once what only looks, and says so', async (signal, exitCode) => {
  const child = spawn(process.execPath, [LAUNCHER, 'plan', '-f', '-', '--root', join(work, 'root')]);
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text;
  });
  const ended = new Promise<number | null>((done) => child.once('close', done));
  child.stdin.on('error', () => undefined);
  // More than a pipe holds: when it is gone, the program is reading, and listens for signals.
  await new Promise((taken) => child.stdin.write(`# ${'x'.repeat(1_000_000)}\n`, taken));
  child.kill(signal);
  expect(await ended).toBe(exitCode);
  expect(stderr).toMatch(new RegExp(`^${signal}: finishing .*\nerror: read standard input: cancelled\n$`));
});
