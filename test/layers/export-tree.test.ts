/** What differs between two trees, as a layer: putting it over the lower one must give the upper one. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type CimReader, openCim } from '../../src/cim/reader.ts';
import { exportTree, type FileTree } from '../../src/layers/export-tree.ts';
import type { LayerMetadata } from '../../src/layers/layer-tar.ts';
import { lowerViewOf } from '../../src/layers/lower-view.ts';
import { type DumpedFile, importIntoCims, makeLayer, readTar } from '../tar/tar-helpers.ts';
import { expected, onlyFiles, stack, tarOfOperations } from './stack-model.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cimlet-tree-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const folder = () => mkdtempSync(join(directory, 'x-'));
const at = (minute: number) => 133_000_000_000_000_000n + BigInt(minute) * 600_000_000n;
const times = (minute: number): LayerMetadata => ({
  creationTime: at(minute),
  lastWriteTime: at(minute),
  changeTime: at(minute),
});

/** A directory of a CIM as a system shows it. */
function treeOf(cim: CimReader, root: string): FileTree {
  const view = lowerViewOf(cim);
  const full = (path: string) => (path === '' ? root : `${root}/${path}`);
  return {
    from: cim.path,
    stat: (path) => view.stat(full(path)),
    entries: (path) => view.entries(full(path)),
    streams: (path) => view.streams(full(path)),
    read: (path, stream) => view.read(full(path), stream),
    identity: (path) => (view.stat(full(path))?.isDirectory ? undefined : `${view.stat(full(path))?.id}`),
  };
}

/** The tar that makes the last of the layers' CIMs of the one before, which may be none. */
function exportLast(where: string, count: number, isOmitted?: (name: string) => boolean): Buffer {
  const upper = openCim(join(where, `layer${count - 1}.cim`));
  const lower = count === 1 ? undefined : openCim(join(where, `layer${count - 2}.cim`));
  try {
    const options = { lower: lower && treeOf(lower, 'Files'), below: 'Files', isOmitted };
    return Buffer.concat([...exportTree(treeOf(upper, 'Files'), options)]);
  } finally {
    upper.close();
    lower?.close();
  }
}

async function entriesOf(...layers: Buffer[]): Promise<string[]> {
  const where = folder();
  await importIntoCims(layers, where);
  return readTar(exportLast(where, layers.length)).map(({ name, linkName }) =>
    linkName === undefined || linkName === '' ? name : `${name} -> ${linkName}`,
  );
}

const BASE = makeLayer((layer) => {
  layer.directory('Files', times(1));
  layer.directory('Files/kept', times(1));
  layer.file('Files/kept/file', 'kept', times(1));
  layer.directory('Files/dir', times(1));
  layer.file('Files/dir/gone', 'gone', times(1));
  layer.file('Files/dir/same', 'same', times(1));
  layer.file('Files/name.txt', 'name', times(1));
});

describe('what differs between trees', () => {
  it('put over the lower tree gives the upper one', async () => {
    await fc.assert(
      fc.asyncProperty(stack, async (layers) => {
        const model = expected(layers);
        fc.pre(model !== undefined);
        const tars = layers.map((layer, index) =>
          tarOfOperations(layer, (position) => times(index * 100 + position)),
        );
        const [one, two] = [folder(), folder()];
        const before = onlyFiles(await importIntoCims(tars, one));
        const last = exportLast(one, tars.length);
        const after = onlyFiles(await importIntoCims([...tars.slice(0, -1), last], two));
        // A new name of a file that was there already becomes a file of its own.
        const withoutLinks = (dump: Map<string, DumpedFile>) =>
          [...dump].map(([path, { same: _, ...file }]) => [path, file]);
        expect(withoutLinks(after)).toEqual(withoutLinks(before));
        // And there is nothing more to say of it.
        if (tars.length > 1) expect(exportLast(two, tars.length).length).toBe(last.length);
      }),
      { numRuns: 30 },
    );
  });

  it('is nothing for the same tree, and everything for one that was there from nothing', async () => {
    expect(
      await entriesOf(
        BASE,
        makeLayer(() => undefined),
      ),
    ).toEqual([]);
    expect(await entriesOf(BASE)).toEqual(
      ['', 'dir/', 'dir/gone', 'dir/same', 'kept/', 'kept/file', 'name.txt'].map((name) => `Files/${name}`),
    );
  });

  it('comes with the directories above it, and without what is beside it', async () => {
    const upper = makeLayer((layer) => {
      layer.whiteout('Files/dir/gone');
      layer.file('Files/dir/new', 'new', times(2));
      layer.hardLink('Files/dir/other', 'Files/dir/new');
    });
    expect(await entriesOf(BASE, upper)).toEqual([
      'Files/',
      'Files/dir/',
      'Files/dir/new',
      'Files/dir/other -> Files/dir/new',
      'Files/dir/.wh.gone',
    ]);
  });

  it('is a file whose bytes differ although it was given its old size and times', async () => {
    const upper = makeLayer((layer) =>
      layer.file('Files/name.txt', 'nama', { ...times(1), changeTime: at(9) }),
    );
    expect(await entriesOf(BASE, upper)).toEqual(['Files/', 'Files/name.txt']);
  });

  it('is not a file of which only the change time differs', async () => {
    const upper = makeLayer((layer) =>
      layer.file('Files/name.txt', 'name', { ...times(1), changeTime: at(9) }),
    );
    expect(await entriesOf(BASE, upper)).toEqual([]);
  });

  it('is a file that is spelled otherwise, and one that a directory took the place of', async () => {
    const upper = makeLayer((layer) => {
      layer.file('Files/NAME.txt', 'name', times(1));
      layer.whiteout('Files/dir');
      layer.file('Files/dir', 'no directory', times(2));
    });
    expect(await entriesOf(BASE, upper)).toEqual(['Files/', 'Files/NAME.txt', 'Files/.wh.dir', 'Files/dir']);
  });

  it("leaves out what is the system's, wherever it is in the root", async () => {
    const where = folder();
    await importIntoCims([BASE], where);
    const names = readTar(exportLast(where, 1, (name) => name === 'KEPT' || name === 'DIR')).map(
      ({ name }) => name,
    );
    expect(names).toEqual(['Files/', 'Files/name.txt']);
  });

  it('stops when it is told to', async () => {
    const where = folder();
    await importIntoCims([BASE], where);
    const cim = openCim(join(where, 'layer0.cim'));
    const cancelled = exportTree(treeOf(cim, 'Files'), { below: 'Files', signal: AbortSignal.abort() });
    expect(() => [...cancelled]).toThrow(expect.objectContaining({ code: 'cancelled' }));
    cim.close();
  });
});
