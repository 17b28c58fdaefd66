/** The demo, and what `doctor` says, as Windows processes with their own default host. */

import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { openWindowsWorld, runWindowsProcess } from '../support/windows.ts';
import { canRunWindows } from '../support/windows-tools.ts';

const REPOSITORY = join(import.meta.dirname, '../..');
const PROGRAM = join(REPOSITORY, 'src/main.ts');
const DEMO = join(REPOSITORY, 'examples/demo.ts');

describe.runIf(canRunWindows())('cimlet on Windows', () => {
  it('does the demo: from YAML to mounted, written to, broken, repaired, and back to nothing', async () => {
    const world = await openWindowsWorld();
    onTestFinished(() => world.close());
    const { code, stdout, stderr } = await runWindowsProcess(world, { script: DEMO });
    // Of the last command, when all is deleted.
    const nothing = expect.stringMatching(/^Nothing found in .*\\root\.\n$/);
    expect({ code, stderr }, stdout).toEqual({ code: 0, stderr: nothing });
    const told = [
      ...['Applied: 11 succeeded', 'hello.cmd', 'No changes. The host matches the manifests.', 'Root hash'],
      ...['\nchanged\n', 'region_', 'is gone', 'Applied: ', 'No changes.', 'Deleted: ', 'Done in'],
    ];
    let rest = stdout;
    for (const text of told) {
      expect(rest).toContain(text);
      rest = rest.slice(rest.indexOf(text) + text.length);
    }
    const volumes = await readdir(join(world.drive, '../dosdevices'));
    expect(volumes.filter((name) => name.startsWith('volume'))).toEqual([]);
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
