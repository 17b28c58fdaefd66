/** A Mount in a utility VM from YAML to the VM and back, with the program as a Windows process. */

import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeExampleImage } from '../../examples/image.ts';
import { openWindowsWorld, runWindowsProcess, type WindowsWorld } from '../support/windows.ts';
import { canRunWindows } from '../support/windows-tools.ts';

const PROGRAM = join(import.meta.dirname, '../../src/main.ts');
const MANIFEST = `apiVersion: cimlet.dev/v1alpha1
kind: Image
metadata: { name: hello }
spec:
  source: { ociLayout: ../images/hello }
  platform: { os: windows, architecture: amd64 }
---
apiVersion: cimlet.dev/v1alpha1
kind: LayerChain
metadata: { name: hello }
spec:
  format: BlockCIM
  layers: [{ image: hello }]
  vhdFooter: true
---
apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: { name: hello }
spec: { chain: hello, access: ReadWrite, path: 'C:\\c\\hello', isolation: { utilityVM: { id: vm } } }
`;

describe.runIf(canRunWindows())('a Mount in a utility VM', () => {
  let world: WindowsWorld;
  const inDrive = (...names: string[]) => join(world.drive, ...names);
  const cimlet = (...args: string[]) =>
    runWindowsProcess(world, { script: PROGRAM, args: [...args, '--root', 'C:\\store'] });
  const applied = async () => {
    const { code, stderr, stdout } = await cimlet('apply', '-f', 'C:\\manifests', '--yes');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    return stdout;
  };
  const kinds = async () =>
    (await readdir(inDrive('doubles/systems/vm.devices'))).map((name) => name.split(' ')[0]).sort();

  async function runVm(runtimeId: string): Promise<void> {
    const vm = { Id: 'vm', SystemType: 'VirtualMachine', RuntimeOsType: 'Windows', RuntimeId: runtimeId };
    await mkdir(inDrive('doubles/systems'), { recursive: true });
    await writeFile(inDrive('doubles/systems/vm.json'), JSON.stringify(vm));
    await writeFile(inDrive('doubles/systems/vm.guest.json'), '{"GuestConnectionInfo":{}}');
  }

  beforeAll(async () => {
    world = await openWindowsWorld();
    await makeExampleImage(inDrive('images'));
    await mkdir(inDrive('manifests'));
    await writeFile(inDrive('manifests/hello.yaml'), MANIFEST);
  });
  afterAll(() => world?.close());

  it('is attached as declared, attached anew when the VM was started again, and taken away', async () => {
    await runVm('first run');
    await applied();
    const whole = ['cims', 'layers', 'mount', 'scsi', 'scsi', 'scsi', 'scsi'];
    expect(await kinds()).toEqual(whole);
    const { stdout } = await cimlet('get', 'mounts', '-o', 'json');
    const { mounted } = JSON.parse(stdout).items[0].status;
    expect(mounted).toMatchObject({
      state: 'mounted',
      utilityVM: 'vm',
      hcsStorage: { Path: 'C:\\c\\hello' },
    });

    await runVm('second run');
    await rm(inDrive('doubles/systems/vm.devices'), { recursive: true });
    expect(await applied()).toContain('started again');
    expect(await kinds()).toEqual(whole);

    const deleted = await cimlet('delete', '-f', 'C:\\manifests', '--yes');
    expect({ code: deleted.code, stderr: deleted.stderr }).toEqual({ code: 0, stderr: '' });
    expect([await kinds(), await readdir(inDrive('store/snapshots'))]).toEqual([[], []]);
  }, 300_000);
});
