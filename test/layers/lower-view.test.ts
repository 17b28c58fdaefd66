import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, vi } from 'vitest';
import { CimReader, openCim } from '../../src/cim/reader.ts';
import { lowerViewOf } from '../../src/layers/lower-view.ts';
import { writeBlock } from '../cim/block-fixture.ts';
import { putDirectory, putFile } from '../cim/fixture.ts';

it('follows links to links through all layers without going down from the root each time', () => {
  const [layers, links] = [32, 32];
  const directory = mkdtempSync(join(tmpdir(), 'cimlet-lower-'));
  const cims: CimReader[] = [];
  const find = vi.spyOn(CimReader.prototype, 'find');
  try {
    for (let n = 0; n < layers; n++) {
      const path = writeBlock(directory, n, (writer) => {
        putDirectory(writer, 'dir');
        for (let i = 0; i < links; i++)
          if (n === 0) putFile(writer, `dir/0-${i}`, `${i}`);
          else writer.createMergeLink(`dir/${n}-${i}`, `dir/${n - 1}-${i}`);
      });
      cims.unshift(openCim(path));
    }
    const view = lowerViewOf(...cims);
    for (let i = 0; i < links; i++)
      expect(Buffer.concat([...view.read(`dir/${layers - 1}-${i}`)]).toString()).toBe(`${i}`);
    // One for each link on the way, and the directory in all layers below each.
    expect(find.mock.calls.length).toBeLessThanOrEqual(layers * links + layers * layers);
  } finally {
    find.mockRestore();
    for (const cim of cims) cim.close();
    rmSync(directory, { recursive: true });
  }
});
