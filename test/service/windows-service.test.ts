/** The agent as a service of Windows, from installed to gone, by Wine's service control manager. */

import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { serviceCommandLine } from '../../src/service/command-line.ts';
import {
  openWindowsWorld,
  type ProcessResult,
  runWindowsProcess,
  type WindowsWorld,
} from '../support/windows.ts';
import { canRunWindows } from '../support/windows-tools.ts';

const CIMLET = join(import.meta.dirname, '../../bin/cimlet.cjs');
const CONFIG = 'C:\\etc cimlet\\cimlet.yaml';
const ROOT = 'C:\\its root';

it('a path with spaces is one path, and nothing is a variable', () => {
  expect(serviceCommandLine(['C:\\Program Files\\x.exe', 'a b', 'c\\', 'd e\\', '', 'f"g'])).toBe(
    '"C:\\Program Files\\x.exe" "a b" c\\ "d e\\\\" "" "f\\"g"',
  );
  expect(() => serviceCommandLine(['C:\\x.exe', '%PATH%'])).toThrow(/variable/);
  expect(() => serviceCommandLine(['C:\\x.exe', 'a\nb'])).toThrow(/control characters/);
});

describe.runIf(canRunWindows())('on Windows', () => {
  let world: WindowsWorld;
  beforeAll(async () => {
    world = await openWindowsWorld({ services: true });
    await mkdir(join(world.drive, 'etc cimlet/manifests'), { recursive: true });
    const manifest = {
      apiVersion: 'cimlet.dev/v1alpha1',
      kind: 'Image',
      metadata: { name: 'elsewhere' },
      spec: { source: { ociLayout: './none' }, hosts: { matchLabels: { site: 'elsewhere' } } },
    };
    await writeFile(join(world.drive, 'etc cimlet/manifests/image.json'), JSON.stringify(manifest));
    const config = { root: ROOT, sources: [{ name: 'here', folder: { path: './manifests' } }] };
    await writeFile(join(world.drive, 'etc cimlet/cimlet.yaml'), JSON.stringify(config));
    const refused = { ...config, listen: { address: '127.0.0.1:1', tokenFile: 'none' } };
    await writeFile(join(world.drive, 'etc cimlet/refused.yaml'), JSON.stringify(refused));
    // Wine ends its services with the last program that isn't one.
    await writeFile(join(world.drive, 'stay.cjs'), 'setInterval(() => {}, 1000);');
    await world.start({ script: join(world.drive, 'stay.cjs') });
  });
  afterAll(() => world?.close());

  const cimlet = (...args: string[]) => runWindowsProcess(world, { script: CIMLET, args });
  const expectCimlet = async (code: number, ...args: string[]): Promise<ProcessResult> => {
    const result = await cimlet(...args);
    expect(result.code, `${args.join(' ')}\n${result.stdout}\n${result.stderr}`).toBe(code);
    return result;
  };
  const install = () => expectCimlet(0, 'service', 'install', '--config', CONFIG);
  const status = async () => JSON.parse((await cimlet('service', 'status', '-o', 'json')).stdout) as unknown;
  const log = async () =>
    (await readFile(join(world.drive, 'its root/logs/cimlet.log'), 'utf8'))
      .trimEnd()
      .split('\n')
      .map((line) => (JSON.parse(line) as { msg: string }).msg);

  it('takes a command line apart as it was put together', async () => {
    const script = join(import.meta.dirname, 'windows-child.ts');
    expect(await runWindowsProcess(world, { script })).toMatchObject({ code: 0, stdout: 'the same\n' });
  });

  it('installs, starts, answers, stops, is changed, and is uninstalled', async () => {
    const refused = await expectCimlet(1, 'service', 'install', '--config', 'C:\\etc cimlet\\refused.yaml');
    expect(refused.stderr).toContain('listen.tokenFile');

    expect((await install()).stdout).toContain('created and started service cimlet');
    const running = await status();
    expect(running).toMatchObject({ state: 'running', processId: expect.any(Number) as unknown });
    // Asked over its pipe, which nobody else serves.
    await expectCimlet(0, 'reconcile', '--root', ROOT);

    expect((await install()).stdout).toContain('changed and started service cimlet');

    await expectCimlet(0, 'service', 'uninstall');
    expect(await status()).toMatchObject({ state: 'absent' });
    const said = await log();
    expect(said.filter((message) => message === 'started')).toHaveLength(2);
    const stops = 'The service manager: finishing what is running, then stopping.';
    expect(said.filter((message) => message === stops)).toHaveLength(2);
    expect(said.at(-1)).toBe('stopped');
  }, 300_000);

  it('ends its process when it runs into a bug, which is what it is started again for', async () => {
    const script = join(import.meta.dirname, 'windows-crash-child.ts');
    expect(await runWindowsProcess(world, { script })).toMatchObject({
      code: 0,
      stdout: 'its process has ended\n',
    });
  });

  it("leaves others' services alone", async () => {
    const { stderr } = await expectCimlet(1, 'service', 'uninstall', '--name', 'PlugPlay');
    expect(stderr).toContain("service PlugPlay is not cimlet's");
  });

  it('is no service when something else starts it', async () => {
    const { stderr } = await expectCimlet(1, 'agent', '--config', CONFIG, '--service', 'cimlet');
    expect(stderr).toContain('ERROR_FAILED_SERVICE_CONTROLLER_CONNECT');
  });
});
