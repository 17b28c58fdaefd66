import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { LogFile } from '../../src/agent/log-file.ts';
import { unmountBelow } from '../support/mounts.ts';
import { runProgram } from '../support/program.ts';
import { isRoot, requireOrSkip } from '../support/requirements.ts';

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

test('begins anew rather than grow when nothing can be put aside', () => {
  const path = join(folder, 'x.log');
  mkdirSync(join(folder, 'x.log.1'));
  writeFileSync(join(folder, 'x.log.1/busy'), '');
  const log = new LogFile(path, { maxBytes: 20, keep: 1 });
  for (let index = 0; index < 10; index++) log.write(`line number ${index}\n`);
  log.close();
  expect(linesOf(path)).toEqual(['line number 9']);
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
  expect(lines).toEqual([
    'first',
    expect.stringContaining('2 lines could not be written here') as unknown,
    'last',
  ]);
});

test('what keeps the agent from starting is in its log, where a service leaves it', async () => {
  const log = join(folder, 'logs/agent.log');
  const { code } = await runProgram(['agent', '--config', join(folder, 'none.yaml'), '--log-file', log]);
  expect(code).toBe(1);
  expect(linesOf(log).map((line) => JSON.parse(line) as object)).toMatchObject([
    { level: 60, code: 'not-found', msg: expect.stringContaining('none.yaml') as unknown },
  ]);
});
