/** Names of files, made and taken away with the native calls that Node doesn't make: Wine's own. */

import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openWindowsWorld, type WindowsWorld } from '../../support/windows.ts';
import { canRunWindows } from '../../support/windows-tools.ts';
import { type Results, runCases } from './cases.ts';

describe.runIf(canRunWindows())('names of files', () => {
  let world: WindowsWorld;
  let results: Results;

  beforeAll(async () => {
    world = await openWindowsWorld({ doubles: [] });
    const names = [
      ...['link', 'linkTwice', 'linkNothing', 'directoryTwice', 'directoryBelowNothing'],
      ...['long', 'remove'],
    ];
    results = await runCases(world, join(import.meta.dirname, 'file-names-child.ts'), names);
  });
  afterAll(() => world?.close());

  it('are given to a file that is there, and never to two', () => {
    expect(results.link?.value).toEqual(['same', true]);
    expect(results.linkTwice?.error).toMatchObject({ code: 'already-exists' });
    expect(results.linkNothing?.error).toMatchObject({ code: 'not-found' });
  });

  it('are made for directories whose parent is there', () => {
    expect(results.directoryTwice?.error).toMatchObject({ code: 'already-exists' });
    expect(results.directoryBelowNothing?.error).toMatchObject({ code: 'not-found' });
    expect(results.long?.value).toEqual({ names: ['again', 'file'], isThere: false });
  });

  it('are taken away with all that is below them, read-only files too; other names of a file stay', () => {
    expect(results.remove?.value).toEqual({ isThere: false, beside: 'kept' });
  });
});
