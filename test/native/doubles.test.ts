/** The contract doubles themselves, called from a Windows process: what they keep, serve, refuse and log. */

import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openWindowsWorld, type WindowsWorld } from '../support/windows.ts';
import { canRunWindows } from '../support/windows-tools.ts';
import { type Step, takeSteps } from './doubles/steps.ts';

const OK = '0x00000000';
const INVALID = '0x80070057';
const VOLUME = '6d3e1f5c-0a4b-5c6d-8e7f-0123456789ab';

const hex = (text: string) => Buffer.from(text).toString('hex');
const DIRECTORY = { attributes: 0x10 };

/** A file of an image, whole. */
function file(image: string, path: string, content: string, more: object = {}): Step[] {
  const size = Buffer.byteLength(content);
  return [
    ['cimfs', 'CimCreateFile', image, path, { ...more, size }, 's'],
    ...(size === 0 ? [] : ([['cimfs', 'CimWriteStream', 's', hex(content), size]] satisfies Step[])),
    ['cimfs', 'CimCloseStream', 's'],
  ];
}

function folder(image: string, path: string): Step[] {
  return [
    ['cimfs', 'CimCreateFile', image, path, DIRECTORY, 's'],
    ['cimfs', 'CimCloseStream', 's'],
  ];
}

describe.runIf(canRunWindows())('the double of cimfs.dll', () => {
  let world: WindowsWorld;
  const results = async (steps: readonly Step[]) => (await takeSteps(world, steps)).map(([result]) => result);
  const failures = async (steps: readonly Step[]) => (await results(steps)).filter((result) => result !== OK);
  const volume = () => join(world.drive, `../dosdevices/volume{${VOLUME}}`);

  beforeAll(async () => {
    world = await openWindowsWorld();
    await mkdir(join(world.drive, 'cims'));
  });
  afterAll(() => world?.close());

  it('serves a forked image on a volume until it is dismounted', async () => {
    const made = await failures([
      ['cimfs', 'CimCreateImage', 'C:\\cims', null, 'base.cim', 'i'],
      ...folder('i', 'Files'),
      ...file('i', 'Files\\a.txt', 'below'),
      ...file('i', 'Files\\b.txt', 'b'),
      ['cimfs', 'CimCommitImage', 'i'],
      ['cimfs', 'CimCloseImage', 'i'],
      ['cimfs', 'CimCreateImage', 'C:\\cims', 'base.cim', 'top.cim', 'j'],
      ...file('j', 'Files\\a.txt', 'above'),
      ['cimfs', 'CimDeletePath', 'j', 'Files\\b.txt'],
      ['cimfs', 'CimCreateHardLink', 'j', 'Files\\c.txt', 'Files\\a.txt'],
      ['cimfs', 'CimCommitImage', 'j'],
      ['cimfs', 'CimCloseImage', 'j'],
      ['cimfs', 'CimMountImage', 'C:\\cims', 'top.cim', 0, VOLUME],
    ]);
    expect(made).toEqual([]);
    const shown = join(volume(), 'Files');
    expect((await readdir(shown)).sort()).toEqual(['a.txt', 'c.txt']);
    expect(await readFile(join(shown, 'c.txt'), 'utf8')).toBe('above');
    expect(await results([['cimfs', 'CimDismountImage', VOLUME]])).toEqual([OK]);
    await expect(readdir(volume())).rejects.toThrow('ENOENT');
    expect((await world.calls()).at(-1)).toMatchObject({ call: 'CimDismountImage', result: OK });
  });

  it('refuses more bytes than declared, and everything after fewer', async () => {
    const answers = await results([
      ['cimfs', 'CimCreateImage', 'C:\\cims', null, 'bytes.cim', 'i'],
      ['cimfs', 'CimCreateFile', 'i', 'f', { size: 3 }, 's'],
      ['cimfs', 'CimWriteStream', 's', hex('four'), 4],
      ['cimfs', 'CimWriteStream', 's', hex('ab'), 2],
      ['cimfs', 'CimCloseStream', 's'],
      ['cimfs', 'CimCommitImage', 'i'],
      ['cimfs', 'CimCloseImage', 'i'],
      ['cimfs', 'CimCommitImage', 'i'],
    ]);
    expect(answers.slice(2)).toEqual([INVALID, OK, OK, INVALID, OK, '0x80070006']);
  });
});
