/** The kernel's overlayfs over separately extracted layers shows what a merge of their block CIMs shows. */

import { execFileSync } from 'node:child_process';
import {
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { mergeBlockCims } from '../../src/cim/merge.ts';
import { publishContainer } from '../../src/cim/publish.ts';
import { type CimReader, openCim } from '../../src/cim/reader.ts';
import { decodeReparse } from '../../src/layers/reparse.ts';
import { unmountBelow } from '../support/mounts.ts';
import { hasTool, isRoot, requireOrSkip } from '../support/requirements.ts';
import { importIntoBlockCims } from './block-layers.ts';
import { expected, type Operation, stack, tarOfOperations } from './stack-model.ts';
import { type DumpedFile, dumpCim } from './tar-helpers.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cimlet-overlay-'));
});
afterEach(() => {
  unmountBelow(directory);
  rmSync(directory, { recursive: true, force: true });
});

/** Extracts one block CIM as overlayfs wants a layer; false when that can't express it. */
function extract(cim: CimReader, to: string): boolean {
  mkdirSync(to);
  const first = new Map<number, string>();
  for (const { path, id } of cim.walk()) {
    const target = join(to, path);
    const info = cim.stat(id);
    const other = first.get(id);
    if (info.mark?.kind === 'merge-link') return false;
    if (info.mark?.kind === 'tombstone') execFileSync('mknod', [target, 'c', '0', '0']);
    else if (info.reparseData !== undefined)
      symlinkSync(decodeReparse(info.reparseData)?.target ?? '', target);
    else if (info.isDirectory) mkdirSync(target);
    else if (other !== undefined) linkSync(other, target);
    else writeFileSync(target, Buffer.concat([...cim.streamChunks(id)]));
    first.set(id, target);
  }
  return true;
}

function dumpTree(root: string): Map<string, DumpedFile> {
  const first = new Map<number, string>();
  const paths = readdirSync(root, { recursive: true, encoding: 'utf8' }).sort((a, b) => (a < b ? -1 : 1));
  return new Map(
    paths.map((path): [string, DumpedFile] => {
      const info = lstatSync(join(root, path));
      if (!first.has(info.ino)) first.set(info.ino, path);
      const same = first.get(info.ino) ?? path;
      if (info.isDirectory()) return [path, { kind: 'directory', content: '', streams: [], same }];
      if (info.isSymbolicLink())
        return [path, { kind: 'link', content: readlinkSync(join(root, path)), streams: [], same }];
      return [path, { kind: 'file', content: readFileSync(join(root, path), 'utf8'), streams: [], same }];
    }),
  );
}

const canMount = requireOrSkip('root', isRoot) && requireOrSkip('mknod', hasTool('mknod'));

describe.runIf(canMount)('overlayfs over extracted layers', () => {
  it('shows what the merged CIM shows', async () => {
    let compared = 0;
    const layersOf = stack.filter((layers) => layers.length > 1 && expected(layers) !== undefined);
    await fc.assert(
      fc.asyncProperty(layersOf, async (layers) => {
        const folder = mkdtempSync(join(directory, 's'));
        const files = await tryImport(layers, folder);
        if (files === undefined) return;
        const folders = files.map((file) => file.replace(/\.bcim$/, ''));
        const extracted = files.every((file, index) => {
          const cim = openCim(file);
          try {
            return extract(cim, folders[index]!);
          } finally {
            cim.close();
          }
        });
        if (!extracted) return;
        const target = join(folder, 'mount');
        mkdirSync(target);
        const sources = [...files].reverse();
        const options = `ro,lowerdir=${[...folders].reverse().join(':')}`;
        execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', options, target]);
        const merged = join(folder, 'merged.bcim');
        mergeBlockCims({
          file: merged,
          name: 'm',
          regionGuid: '11111111-0000-4000-8000-000000000000',
          sources,
        });
        publishContainer(merged);
        const shown = dumpTree(target);
        execFileSync('umount', [target]);
        const plain = [...dumpCim(merged, { sources })].map(([path, file]) => [
          path,
          { ...file, streams: [] },
        ]);
        expect([...shown]).toEqual(plain);
        compared++;
      }),
      { numRuns: 60 },
    );
    expect(compared).toBeGreaterThan(5);
  });
});

async function tryImport(layers: readonly Operation[][], folder: string): Promise<string[] | undefined> {
  try {
    return (
      await importIntoBlockCims(
        layers.map((layer) => tarOfOperations(layer)),
        folder,
      )
    ).files;
  } catch (error) {
    expect(error).toMatchObject({ code: 'corrupt' });
    return undefined;
  }
}
