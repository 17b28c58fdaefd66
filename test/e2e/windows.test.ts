/** From YAML to a mounted chain and back, with the program as a Windows process and its own default host. */

import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
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
  layers: [{ image: hello }]
  merge: true
  integrity: Verified
---
apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: { name: hello }
spec: { chain: hello, path: 'C:\\shown\\hello' }
`;

describe.runIf(canRunWindows())('cimlet on Windows', () => {
  let world: WindowsWorld;
  const cimlet = async (...args: string[]) =>
    runWindowsProcess(world, { script: PROGRAM, args: [...args, '--root', 'C:\\store'] });
  const inDrive = (...names: string[]) => join(world.drive, ...names);
  const devices = async () =>
    (await readdir(inDrive('../dosdevices'))).filter((name) => name.startsWith('volume{'));

  beforeAll(async () => {
    world = await openWindowsWorld();
    await makeExampleImage(inDrive('images'));
    await mkdir(inDrive('manifests'));
    await writeFile(inDrive('manifests/hello.yaml'), MANIFEST);
  });
  afterAll(() => world?.close());

  it('shows what is declared, comes through a kill, repairs what drifts, and takes it all away', async () => {
    const manifests = ['-f', 'C:\\manifests'];
    await world.plan([{ call: 'CimSealImage', nth: 2, action: 'kill-after' }]);
    expect((await cimlet('apply', ...manifests, '--yes')).code).not.toBe(0);

    const applied = await cimlet('apply', ...manifests, '--yes');
    expect({ code: applied.code, stderr: applied.stderr }).toEqual({ code: 0, stderr: '' });
    const shown = inDrive('shown/hello/Windows/win.ini');
    expect(await readFile(shown, 'utf8')).toContain('16-bit');
    expect(await devices()).toHaveLength(1);

    const merged = (await readdir(inDrive('store/snapshots'))).find((name) => name.endsWith('.merged'));
    await rm(inDrive('store/snapshots', merged ?? 'no merged CIM', 'merged.bcim'));
    const repaired = await cimlet('apply', ...manifests, '--yes');
    expect(repaired.stdout).toContain('merged.bcim is gone');
    expect({ code: repaired.code, stderr: repaired.stderr }).toEqual({ code: 0, stderr: '' });
    expect((await cimlet('plan', ...manifests, '--detailed-exitcode')).code).toBe(0);

    const deleted = await cimlet('delete', ...manifests, '--yes');
    expect({ code: deleted.code, stderr: deleted.stderr }).toEqual({ code: 0, stderr: '' });
    expect([await devices(), await readdir(inDrive('store/snapshots'))]).toEqual([[], []]);
  }, 300_000);

  it('says why an older Windows has no CIMs', async () => {
    const old = await openWindowsWorld({ build: 20348, revision: 2030 });
    try {
      const args = ['doctor', '-o', 'json', '--root', 'C:\\store'];
      const { code, stdout } = await runWindowsProcess(old, { script: PROGRAM, args });
      const { findings } = JSON.parse(stdout) as {
        findings: { name: string; ok: boolean; message: string }[];
      };
      const reasonOf = (name: string) => findings.find((finding) => finding.name === name)?.message;
      // It has layers of its own, without CIMs.
      expect(code).toBe(0);
      expect(findings.find(({ name }) => name === 'WCIFS.mount')?.ok).toBe(true);
      expect(reasonOf('ForkedCIM.mount')).toMatch(/20348 with revision 2031.*this is 20348\.2030/);
      expect(reasonOf('BlockCIM.mount')).toMatch(/build 27766.*this is 20348\.2030/);
    } finally {
      await old.close();
    }
  });
});
