/** A writable Mount of WCIFS layers through the program as a Windows process, which is killed while it is mounted. */

import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { makeExampleImage } from '../../examples/image.ts';
import { openWindowsWorld, runWindowsProcess } from '../support/windows.ts';
import { canRunWindows } from '../support/windows-tools.ts';

const MAIN = join(import.meta.dirname, '../../src/main.ts');

const MANIFEST = `
apiVersion: cimlet.dev/v1alpha1
kind: Image
metadata: {name: hello}
spec: {source: {ociLayout: images/hello}, platform: {os: windows, architecture: amd64}}
---
apiVersion: cimlet.dev/v1alpha1
kind: LayerChain
metadata: {name: hello}
spec: {format: WCIFS, layers: [{image: hello}]}
---
apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: {name: work}
spec: {chain: hello, access: ReadWrite, path: 'C:/views/work'}
`;

describe.runIf(canRunWindows())('a writable Mount of WCIFS layers on Windows', () => {
  it('keeps what was written when the process is killed while it is mounted, until it is deleted', async () => {
    const world = await openWindowsWorld();
    onTestFinished(() => world.close());
    const cimlet = async (code: number, ...args: string[]): Promise<string> => {
      const common = ['--host', 'windows', '--root', 'C:\\cimlet'];
      const result = await runWindowsProcess(world, { script: MAIN, args: [...args, ...common] });
      expect(result.code, `${args.join(' ')}\n${result.stdout}\n${result.stderr}`).toBe(code);
      return result.stdout;
    };
    await makeExampleImage(join(world.drive, 'demo/images'));
    await mkdir(join(world.drive, 'demo'), { recursive: true });
    await writeFile(join(world.drive, 'demo/work.yaml'), MANIFEST);
    const file = ['-f', 'C:\\demo\\work.yaml'];
    const written = join(world.drive, 'views/work/written.txt');

    await world.plan([{ call: 'SetVolumeMountPointW', action: 'kill-after' }]);
    await cimlet(137, 'apply', ...file, '--yes');
    await writeFile(written, 'before');
    await cimlet(0, 'apply', ...file, '--yes');
    expect(await readFile(written, 'utf8')).toBe('before');
    await writeFile(written, 'kept');

    await world.plan([{ call: 'UnprepareLayer', action: 'kill-after' }]);
    await cimlet(137, 'delete', 'mount/work', '--yes');
    await cimlet(0, 'apply', ...file, '--yes');
    expect(await readFile(written, 'utf8')).toBe('kept');
    expect(await cimlet(0, 'plan', ...file, '--detailed-exitcode')).toContain('No changes');

    await cimlet(0, 'delete', ...file, '--yes');
    const devices = await readdir(join(world.drive, '../dosdevices'));
    expect(devices.filter((name) => name.startsWith('volume'))).toEqual([]);
    expect(await readdir(join(world.drive, 'cimlet/snapshots'))).toEqual([]);
    expect(await readdir(join(world.drive, 'cimlet/mounts'))).toEqual([]);
  }, 300_000);
});
