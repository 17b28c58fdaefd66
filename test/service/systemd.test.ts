import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ServiceDefinition } from '../../src/service/service-manager.ts';
import { createSystemd } from '../../src/service/systemd.ts';
import { systemdUnit } from '../../src/service/systemd-unit.ts';
import { runProgram } from '../support/program.ts';
import { hasTool, requireOrSkip } from '../support/requirements.ts';

const service: ServiceDefinition = {
  name: 'cimlet',
  command: [process.execPath, '/opt/cimlet/bin/cimlet.cjs', 'agent', '--config', '/etc/cimlet/cimlet.yaml'],
  root: '/var/lib/cimlet',
  stopTimeoutMs: 30_000,
};
const { signal } = new AbortController();

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cimlet-service-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const execStart = (...command: [string, ...string[]]) =>
  /^ExecStart=(.*)$/m.exec(systemdUnit({ ...service, command }))?.[1];

describe('the unit', () => {
  const verify = requireOrSkip('systemd-analyze', hasTool('systemd-analyze'));

  test.runIf(verify)('is one that systemd understands without a remark', () => {
    const awkward = ['with space', '50%', '$HOME', 'a"b', 'a\\b', "it's", 'ünï', ';', '', '$x'];
    const file = join(folder, 'cimlet.service');
    writeFileSync(file, systemdUnit({ ...service, command: [...service.command, ...awkward] }));
    const remarks = execFileSync('systemd-analyze', ['verify', '--man=no', file], { encoding: 'utf8' });
    expect(remarks).toBe('');
  });

  test('quotes its arguments as systemd.service(5) says, so that nothing in them means anything', () => {
    expect(execStart('/a', '-f', '/b c')).toBe('/a -f "/b c"');
    expect(execStart('/a', '50%', '$HOME', 'x"y', 'x\\y')).toBe('/a "50%%" "$$HOME" "x\\"y" "x\\\\y"');
    expect(() => execStart('/a', 'x\nExecStartPre=/bin/evil')).toThrow(/can't hold/);
  });

  test('leaves the agent the time it was given, and some', () => {
    expect(systemdUnit({ ...service, stopTimeoutMs: 90_500 })).toContain('TimeoutStopSec=106s');
  });

  test('gives the agent no mount namespace of its own, in which its mounts would be lost', () => {
    expect(systemdUnit(service)).not.toMatch(
      /^(Protect(System|Home|Kernel|Control|Proc)|Private|ReadWrite|BindPaths|Temporary)/m,
    );
  });
});

describe('where systemd runs', () => {
  /** Records what it is told, and answers `show`. */
  const systemctl = (answer: string, status = 0) => {
    const file = join(folder, 'systemctl');
    writeFileSync(file, `#!/bin/sh\necho "$@" >> ${folder}/told\n${answer}\nexit ${status}\n`, {
      mode: 0o755,
    });
    return createSystemd({ directory: join(folder, 'units'), marker: folder, systemctl: file });
  };
  const told = () => readFileSync(join(folder, 'told'), 'utf8').trimEnd().split('\n');
  beforeEach(() => mkdirSync(join(folder, 'units')));

  test('installs, replaces, and uninstalls, leaving nothing behind', async () => {
    const systemd = systemctl('');
    expect(await systemd.status('cimlet', signal)).toMatchObject({ state: 'absent' });
    await systemd.install({ ...service, stopTimeoutMs: 1 }, signal);
    await systemd.install(service, signal);
    expect(readdirSync(join(folder, 'units'))).toEqual(['cimlet.service']);
    expect(readFileSync(join(folder, 'units/cimlet.service'), 'utf8')).toBe(systemdUnit(service));
    await systemd.uninstall('cimlet', signal);
    await systemd.uninstall('cimlet', signal);
    expect(readdirSync(join(folder, 'units'))).toEqual([]);
    const install = ['daemon-reload', 'enable cimlet.service', 'restart cimlet.service'];
    expect(told()).toEqual([...install, ...install, 'disable --now cimlet.service', 'daemon-reload']);
  });

  test('says how it is', async () => {
    const running = systemctl('echo "ActiveState=active\nSubState=running\nMainPID=12\nResult=success"');
    await running.install(service, signal);
    expect(await running.status('cimlet', signal)).toEqual({
      state: 'running',
      detail: 'active (running), process 12',
      processId: 12,
    });
    const failed = systemctl(
      'echo "ActiveState=failed\nSubState=failed\nMainPID=0\nResult=exit-code\nExecMainStatus=1"',
    );
    expect(await failed.status('cimlet', signal)).toEqual({
      state: 'stopped',
      detail: 'failed (failed), result exit-code',
      exitCode: 1,
    });
  });

  test('passes on what systemctl says is wrong', async () => {
    const refusing = systemctl('echo "Access denied" >&2', 1);
    await expect(refusing.install(service, signal)).rejects.toMatchObject({
      code: 'unavailable',
      message: 'systemctl daemon-reload: Access denied',
    });
  });
});

describe('where systemd does not run', () => {
  const absent = () =>
    createSystemd({ directory: folder, marker: join(folder, 'nothing'), systemctl: '/nothing' });

  test('writes the unit, and says what is left to do', async () => {
    expect(await absent().install(service, signal)).toEqual([
      `wrote ${folder}/cimlet.service`,
      "systemd doesn't run here; where it does: systemctl daemon-reload && systemctl enable --now cimlet.service",
    ]);
    expect(await absent().status('cimlet', signal)).toMatchObject({ state: 'stopped' });
    await absent().uninstall('cimlet', signal);
    expect(existsSync(join(folder, 'cimlet.service'))).toBe(false);
  });

  test('a folder that is not there is an error, and leaves nothing', async () => {
    const nowhere = createSystemd({ directory: join(folder, 'none'), marker: '/nothing' });
    await expect(nowhere.install(service, signal)).rejects.toMatchObject({ code: 'not-found' });
    expect(readdirSync(folder)).toEqual([]);
  });
});

describe('on the command line', () => {
  test('a dry run prints the unit, with everything said in full', async () => {
    const config = join(folder, 'cimlet.yaml');
    writeFileSync(config, `sources:\n- {name: here, folder: {path: ${folder}}}\n`);
    const { code, stdout } = await runProgram(
      ['service', 'install', '--config', 'cimlet.yaml', '--root', 'data', '--dry-run'],
      { cwd: folder },
    );
    expect(code).toBe(0);
    expect(stdout).toMatch(
      new RegExp(`bin/cimlet\\.cjs agent --config ${config} --root ${folder}/data$`, 'm'),
    );
    expect(readdirSync(folder)).toEqual(['cimlet.yaml']);
  });

  test('what could not run is not installed', async () => {
    const nothing = await runProgram(['service', 'install', '--dry-run']);
    expect(nothing).toMatchObject({ code: 1, stderr: expect.stringContaining('nothing to follow') });
    const config = join(folder, 'cimlet.yaml');
    writeFileSync(config, 'sauces: []\n');
    const wrong = await runProgram(['service', 'install', '--config', config, '--dry-run']);
    expect(wrong.code).toBe(1);
    expect(wrong.stderr).toMatch(/cimlet\.yaml:1:1: sauces/);
    writeFileSync(config, 'sources: []\nlisten: {address: 127.0.0.1:9180, tokenFile: none}\n');
    const secretless = await runProgram(['service', 'install', '--config', config, '--dry-run']);
    expect(secretless.stderr).toMatch(/cimlet\.yaml:2:.*listen\.tokenFile/);
    expect(secretless.code).toBe(1);
    const name = await runProgram(['service', 'status', '--name', '../x']);
    expect(name).toMatchObject({ code: 1, stderr: expect.stringContaining('letters, digits') });
  });
});
