import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { LogFile } from '../../src/agent/log-file.ts';
import { unmountBelow } from '../support/mounts.ts';
import { runProgram } from '../support/program.ts';
import { isRoot, requireOrSkip } from '../support/requirements.ts';
import { openWindowsWorld, runWindowsProcess, type WindowsWorld } from '../support/windows.ts';
import { canRunWindows } from '../support/windows-tools.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cimlet-log-'));
});
afterEach(() => {
  unmountBelow(folder);
  rmSync(folder, { recursive: true, force: true });
});

const linesOf = (path: string) => readFileSync(path, 'utf8').trimEnd().split('\n');

test('holds the latest lines, whole and in order, in no more than it may take', () => {
  const line = fc.string({ unit: fc.constantFrom('a', 'é'), minLength: 1, maxLength: 40 });
  fc.assert(
    fc.property(fc.array(line, { minLength: 1, maxLength: 60 }), fc.boolean(), (lines, reopened) => {
      const logs = mkdtempSync(join(folder, 'logs-'));
      const path = join(logs, 'x.log');
      const options = { maxBytes: 200, keep: 2 };
      let log = new LogFile(path, options);
      for (const [index, text] of lines.entries()) {
        if (reopened && index === lines.length >> 1) {
          log.close();
          log = new LogFile(path, options);
        }
        log.write(`${text}\n`);
      }
      log.close();
      const files = ['x.log.2', 'x.log.1', 'x.log'].filter((name) => readdirSync(logs).includes(name));
      expect(readdirSync(logs)).toHaveLength(files.length);
      const kept = files.flatMap((name) => linesOf(join(logs, name)));
      expect(kept).toEqual(lines.slice(-kept.length));
      for (const name of files) expect(statSync(join(logs, name)).size).toBeLessThanOrEqual(200);
      if (kept.length < lines.length) expect(files).toHaveLength(3);
    }),
  );
});

test("what can't be put aside grows to twice its bound, then begins anew and says how much is lost", () => {
  const path = join(folder, 'x.log');
  mkdirSync(join(folder, 'x.log.1/busy'), { recursive: true });
  const log = new LogFile(path, { maxBytes: 150, keep: 1 });
  for (let index = 0; index < 20; index++) log.write(`line number ${index + 10}\n`);
  expect(linesOf(path)).toHaveLength(20);
  log.write('the next\n');
  expect(linesOf(path)).toEqual([expect.stringContaining('lines missing here: 20'), 'the next']);
  rmSync(join(folder, 'x.log.1'), { recursive: true });
  log.write(`${'x'.repeat(100)}\n`);
  log.close();
  expect(linesOf(path)).toEqual(['x'.repeat(100)]);
  expect(linesOf(join(folder, 'x.log.1'))).toHaveLength(2);
});

test('goes on where it was when its file is taken away', () => {
  const path = join(folder, 'x.log');
  const log = new LogFile(path, { maxBytes: 20, keep: 1 });
  log.write('line number 1\n');
  rmSync(path);
  log.write('line number 2\n');
  log.close();
  expect(linesOf(path)).toEqual(['line number 2']);
});

test.runIf(requireOrSkip('root', isRoot))('a full disk loses lines, and says how many', () => {
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16k', 'tmpfs', folder]);
  const log = new LogFile(join(folder, 'x.log'));
  log.write('first\n');
  writeFileSync(join(folder, 'ballast'), '');
  execFileSync('sh', ['-c', `cat /dev/zero > ${join(folder, 'ballast')} 2>/dev/null || true`]);
  const long = `${'x'.repeat(8192)}\n`;
  log.write(long);
  log.write(long);
  rmSync(join(folder, 'ballast'));
  log.write('last\n');
  log.close();
  const lines = linesOf(join(folder, 'x.log'));
  expect(lines).toEqual(['first', expect.stringContaining('lines missing here: 2') as unknown, 'last']);
});

test.runIf(requireOrSkip('root', isRoot))(
  'a full disk leaves no part of a line in a log that began anew',
  () => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16k', 'tmpfs', folder]);
    mkdirSync(join(folder, 'x.log.1/busy'), { recursive: true });
    const path = join(folder, 'x.log');
    const log = new LogFile(path, { maxBytes: 8, keep: 1 });
    for (const line of ['first', 'second', 'third', 'fourth']) log.write(`${line}\n`);
    log.write(`${'x'.repeat(32_768)}\n`);
    log.write('last\n');
    log.close();
    expect(readFileSync(path, 'utf8')).not.toMatch(/\0|x/);
    expect(linesOf(path).at(-1)).toBe('last');
  },
);

describe.runIf(canRunWindows())('on Windows', () => {
  let world: WindowsWorld;
  beforeAll(async () => {
    world = await openWindowsWorld({ doubles: [] });
  });
  afterAll(() => world?.close());

  const script = join(import.meta.dirname, 'windows-log-child.ts');
  const run = async (...args: string[]) => {
    const { code, stderr } = await runWindowsProcess(world, { script, args });
    expect(code, stderr).toBe(0);
  };

  test.each(['x.log', 'x.log.2'])(
    'a reader of %s costs no line, and has it only until it is gone',
    async (read) => {
      const logs = join(world.drive, read);
      mkdirSync(logs);
      for (const number of [1, 2, 3, 4]) writeFileSync(join(logs, `x.log.${number}`), `file ${number}\n`);
      await run(read);
      const kept = ['x.log.4', 'x.log.3', 'x.log.2', 'x.log.1', 'x.log'].flatMap((name) =>
        linesOf(join(logs, name)),
      );
      const lines = Array.from({ length: 20 }, (_, index) => `line number ${index + 10}`);
      expect(kept).toEqual(['file 3', 'file 2', 'file 1', ...lines, 'without a reader']);
      expect(linesOf(join(logs, 'x.log'))).toEqual(['without a reader']);
    },
  );

  test.runIf(requireOrSkip('root', isRoot))('a full disk leaves no part of a line', async () => {
    const logs = join(world.drive, 'full');
    mkdirSync(logs);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16k', 'tmpfs', logs]);
    try {
      await run('full');
      expect(linesOf(join(logs, 'x.log'))).toEqual([
        'first',
        expect.stringContaining('lines missing here: 1') as unknown,
        'last',
      ]);
    } finally {
      unmountBelow(logs);
    }
  });
});

test('what keeps the agent from starting is in its log, where a service leaves it', async () => {
  const log = join(folder, 'logs/agent.log');
  const { code } = await runProgram(['agent', '--config', join(folder, 'none.yaml'), '--log-file', log]);
  expect(code).toBe(1);
  expect(linesOf(log).map((line) => JSON.parse(line) as object)).toMatchObject([
    { level: 60, code: 'not-found', msg: expect.stringContaining('none.yaml') as unknown },
  ]);
});
