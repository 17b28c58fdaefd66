/** What an image's way from a registry looks like on a terminal (in tmux) and in a pipe. */

import { execFile, execFileSync } from 'node:child_process';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { writeOciLayout } from '../../src/images/layout-writer.ts';
import { tarOf, World } from '../e2e/world.ts';
import { type FaultProxy, startFaultProxy } from '../images/registry/fault-proxy.ts';
import {
  canRunRegistry,
  certsD,
  noise,
  plainHttp,
  push,
  startRegistry,
  type TestRegistry,
} from '../images/registry/registry-fixture.ts';
import { layerItems } from '../support/host-layers.ts';
import { COMPILE_CACHE, expectProgram } from '../support/program.ts';
import { hasTool, requireOrSkip } from '../support/requirements.ts';

const LAUNCHER = resolve(import.meta.dirname, '../../bin/cimlet.cjs');
const CIMLET = `'${process.execPath}' '${LAUNCHER}'`;

let world: World;
let registry: TestRegistry;
let proxy: FaultProxy;
let env: string;
let cleanUp: () => void;

const canRun = canRunRegistry && requireOrSkip('tmux', hasTool('tmux'));

describe.runIf(canRun)('progress', () => {
  beforeAll(async () => {
    world = new World((end) => {
      cleanUp = end;
    });
    registry = await startRegistry(world.directory);
    proxy = await startFaultProxy(registry.host);
    const layers = [20_000, 3_000_000].map((bytes, index) => ({
      tar: [tarOf(layerItems({ [`file${index}`]: noise(bytes, `${index}`).toString('latin1') }))],
      compression: 'gzip' as const,
    }));
    const layout = world.path('images/app');
    await writeOciLayout(layout, { layers, platform: { os: 'windows', architecture: 'amd64' }, ref: 'v1' });
    await push(layout, `${registry.host}/app:v1`);
    env = [
      `CIMLET_REGISTRY_CONFIG='${certsD(world.directory, plainHttp(proxy.host))}'`,
      `DOCKER_CONFIG='${world.directory}' NODE_COMPILE_CACHE='${COMPILE_CACHE}'`,
    ].join(' ');
    const source = `source: {registry: "${proxy.host}/app:v1"}`;
    world.write(
      'manifests/app.yaml',
      world.appText({ view: 'Extracted' }).replace(/source: \{[^}]*\}/, source),
    );
  });
  afterAll(async () => {
    await proxy.close();
    await registry.stop();
    cleanUp();
  });

  /** The server sends the first half of the large layer, and the second once the gate is open. */
  let gate: PromiseWithResolvers<void>;
  const holdBack = () => {
    gate = Promise.withResolvers();
    proxy.fault = async ({ asked, answer, response }) => {
      if (asked.kind !== 'blob' || answer.body.length < 1_000_000) return 'untouched';
      const half = answer.body.length >> 1;
      response.writeHead(answer.status, answer.headers);
      response.write(answer.body.subarray(0, half));
      await gate.promise;
      response.end(answer.body.subarray(half));
      return 'spoiled';
    };
  };

  let sessions = 0;
  const socket = () => `cimlet-progress-${process.pid}-${sessions}`;
  const tmux = async (...args: string[]) =>
    (await promisify(execFile)('tmux', ['-L', socket(), '-f', '/dev/null', ...args])).stdout;

  const startOnScreen = async (command: string, columns: number) => {
    sessions++;
    const line = `trap : INT; cd '${world.directory}'; env -u CI ${env} ${command}; echo "exit $?"; tmux wait-for -S ended; read -r _`;
    await tmux('new-session', '-d', '-x', String(columns), '-y', '30', '-s', 'test', 'sh', '-c', line);
  };
  const capture = () => tmux('capture-pane', '-p', '-t', 'test');
  /** The screen, once it shows that. */
  const screenWith = async (pattern: RegExp): Promise<string> => {
    let screen = await capture();
    while (!pattern.test(screen)) screen = await capture();
    return screen;
  };
  afterEach(() => {
    gate.resolve();
    execFileSync('tmux', ['-L', socket(), 'kill-server'], { stdio: 'ignore' });
  });
  const apply = (root: string) => `${CIMLET} apply -f '${world.manifest}' --root '${world.path(root)}' --yes`;
  const remove = (root: string) =>
    expectProgram(['delete', 'mount/app', '--yes', '--root', world.path(root)], 0);

  test.each([40, 80, 200])('is a bar for each layer and for all of them, at %d columns', async (columns) => {
    holdBack();
    const root = `root-${columns}`;
    await startOnScreen(apply(root), columns);
    const during = await screenWith(
      /^✓ .*Snapshot\/.*\n↓ .*5\d%.*\n1 of 5 actions done, 1 running\ndownloading .*5\d%/m,
    );
    if (columns > 40) expect(during).toMatch(/^↓ .*Snapshot\/[0-9a-f]{12} +downloading █+░+ \d+%/m);
    gate.resolve();
    await tmux('wait-for', 'ended');
    const after = await capture();
    expect(after).toMatch(/^5 of 5 actions done\n\nApplied: 5 succeeded/m);
    expect(after).toMatch(/^exit 0$/m);
    // Drawn over, not one below the other, and nothing that moved is left.
    expect(after.match(/^✓ ├─ Image\/app /gm)).toHaveLength(1);
    expect(after).not.toMatch(/%|downloading|unpacking/);
    await remove(root);
  });

  test('is drawn anew when the terminal gets narrower, and ends clean when interrupted', async () => {
    holdBack();
    await startOnScreen(apply('root-resized'), 120);
    await screenWith(/done, 1 running\ndownloading .*(4\d|5\d)%/);
    await tmux('resize-window', '-t', 'test', '-x', '60');
    const narrow = await screenWith(/^↓ .*Snapshot\/[0-9a-f]{12} +downloading [█░]{5,10} \d+%.*$/m);
    expect(narrow.match(/Image\/app +downloading/g)).toHaveLength(1);
    expect(narrow.match(/^. Mount\/app +waiting/gm)).toHaveLength(1);
    await tmux('send-keys', '-t', 'test', 'C-c');
    await tmux('wait-for', 'ended');
    const after = await capture();
    expect(after).toMatch(/^SIGINT: finishing what is running/m);
    expect(after).toMatch(/^exit 130$/m);
    expect(after.match(/Image\/app +/g)?.length).toBeGreaterThan(0);
    expect(await tmux('display-message', '-p', '-t', 'test', '#{cursor_flag}')).toBe('1\n');
  });

  test('of an image copied is shown and taken away', async () => {
    holdBack();
    await startOnScreen(
      `${CIMLET} image copy docker://${proxy.host}/app:v1 oci:copied:v1 --platform windows/amd64 --root copying`,
      80,
    );
    await screenWith(/^sha256:[0-9a-f]{12} +downloading .* 5\d%.*\ndownloading .* 5\d%/);
    gate.resolve();
    await tmux('wait-for', 'ended');
    const after = await capture();
    expect(after).toMatch(/^Copied .*\nexit 0\n/);
  });
});
