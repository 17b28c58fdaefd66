/** The layers below, as a volume shows them. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { MountedLayers } from '../../../src/hosts/windows/mounted-layers.ts';
import type { FileFacts, WindowsFileInfo } from '../../../src/native/windows/file-info.ts';
import { openWindowsWorld, runWindowsProcess } from '../../support/windows.ts';
import { canRunWindows } from '../../support/windows-tools.ts';

const SYMLINK = 0xa000000c;

/** What Windows would say of a volume, whose paths begin with `V:`. */
function factsOf(entries: Record<string, Partial<WindowsFileInfo>>, asked: string[]): FileFacts {
  const times = { creationTime: 0n, lastAccessTime: 0n, lastWriteTime: 0n, changeTime: 0n };
  return {
    info: (path) => {
      asked.push(path);
      const entry = entries[path.slice('V:'.length)];
      return (
        entry && { attributes: 0, isDirectory: false, reparseTag: 0, size: 0, links: 1, ...times, ...entry }
      );
    },
    securityDescriptor: () => Buffer.alloc(0),
    reparseData: () => Buffer.alloc(8),
    extendedAttributes: () => undefined,
    fileId: (path) => path,
    streams: () => [{ name: 'found', size: 1 }],
  };
}

it('looks through no link of a layer, wherever that points', () => {
  const asked: string[] = [];
  const layers = new MountedLayers(
    'V:',
    factsOf(
      {
        Hives: { isDirectory: true, reparseTag: SYMLINK },
        'Hives\\SYSTEM_BASE': { size: 5 },
        Files: { isDirectory: true },
        'Files\\link': { reparseTag: SYMLINK },
        'Files\\file': { size: 5 },
      },
      asked,
    ),
  );
  expect(layers.stat('Hives/SYSTEM_BASE')).toBeUndefined();
  expect([...layers.read('Hives/SYSTEM_BASE')]).toEqual([]);
  expect(layers.entries('Hives')).toEqual([]);
  expect(layers.stat('Files/link')).toMatchObject({ reparseTag: SYMLINK });
  expect([...layers.read('Files/link')]).toEqual([]);
  expect(layers.streams('Files/link')).toEqual([]);
  expect(layers.streams('Files/file')).toEqual([{ name: 'found', size: 1 }]);
  expect(layers.stat('Files/file/below')).toBeUndefined();
  expect(asked).not.toContain('V:Hives\\SYSTEM_BASE');
});

it('reads in chunks, and says which file could not be read', () => {
  const directory = mkdtempSync(join(tmpdir(), 'cimlet-layers-'));
  try {
    writeFileSync(join(directory, 'big'), Buffer.alloc(2_500_000, 7));
    const entries = { big: { size: 2_500_000 }, gone: {} };
    const facts = factsOf(entries, []);
    const under: FileFacts = {
      ...facts,
      info: (path) => facts.info(`V:${path.slice(directory.length + 1)}`),
    };
    const layers = new MountedLayers(`${directory}/`, under);
    const chunks = [...layers.read('big')];
    expect(chunks.length).toBeGreaterThan(2);
    expect(Buffer.concat(chunks).equals(Buffer.alloc(2_500_000, 7))).toBe(true);
    expect(() => [...layers.read('gone')]).toThrow(/gone/);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

describe.runIf(canRunWindows())('as a Windows process', () => {
  it('sees what Node sees, and more', async () => {
    const world = await openWindowsWorld();
    try {
      const { stdout, stderr } = await runWindowsProcess(world, {
        script: join(import.meta.dirname, 'look.ts'),
      });
      expect(stderr).toBe('');
      const plain = { reparseTag: 0, sameTimes: true, streams: [], descriptor: '01000480' };
      expect(JSON.parse(stdout)).toEqual({
        seen: [
          { ...plain, name: 'file.txt', isDirectory: false, directoryBit: false, size: 12 },
          { ...plain, name: 'directory', isDirectory: true, directoryBit: true, size: expect.any(Number) },
        ],
        absent: [null, null, null],
        entries: ['directory', 'file.txt', 'one', 'two'],
        noEntries: [],
        content: 'twelve bytes',
        names: { same: true, single: null, directory: null },
        extendedAttributes: null,
      });
    } finally {
      await world.close();
    }
  });
});
