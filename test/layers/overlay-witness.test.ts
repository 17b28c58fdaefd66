/** The kernel's overlayfs over layers that tar unpacked, each by itself, shows what a merge of their block CIMs shows. */

import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { mergeBlockCims } from '../../src/cim/merge.ts';
import { publishContainer } from '../../src/cim/publish.ts';
import { unmountBelow } from '../support/mounts.ts';
import { hasTool, isRoot, requireOrSkip } from '../support/requirements.ts';
import { type DumpedFile, dumpCim } from '../tar/tar-helpers.ts';
import { importIntoBlockCims } from './block-layers.ts';
import { expected, linksForward, type Operation, onlyFiles, stack, tarOfOperations } from './stack-model.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cimlet-overlay-'));
});
afterEach(() => {
  unmountBelow(directory);
  rmSync(directory, { recursive: true, force: true });
});

/**
 * Unpacks a layer's tar with GNU tar and says its whiteouts as overlayfs does (overlayfs.rst, "whiteouts and opaque directories"); false for
 * what can't be unpacked alone, such as a link to a lower file.
 */
function unpack(tar: Buffer, to: string): boolean {
  mkdirSync(to);
  if (spawnSync('tar', ['-x', '-C', to], { input: tar }).status !== 0) return false;
  for (const path of readdirSync(to, { recursive: true, encoding: 'utf8' }).map((name) => join(to, name))) {
    if (!basename(path).startsWith('.wh.')) continue;
    rmSync(path);
    const hidden = join(dirname(path), basename(path).slice('.wh.'.length));
    if (basename(path) === '.wh..wh..opq') makeOpaque(dirname(path));
    else if (!existsSync(hidden) && !isLink(hidden)) execFileSync('mknod', [hidden, 'c', '0', '0']);
    else if (lstatSync(hidden).isDirectory()) makeOpaque(hidden);
  }
  return true;
}

function isLink(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true;
}

function makeOpaque(path: string): void {
  execFileSync('setfattr', ['-n', 'trusted.overlay.opaque', '-v', 'y', path]);
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

const canMount =
  requireOrSkip('root', isRoot) &&
  ['mknod', 'tar', 'setfattr'].every((tool) => requireOrSkip(tool, hasTool(tool)));

/** File systems differ in whether they take overlayfs's attributes; this one does. */
function temporaryFileSystem(): string {
  const target = join(directory, 'fs');
  mkdirSync(target);
  execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', target]);
  return target;
}

describe.runIf(canMount)('overlayfs over unpacked layers', () => {
  it('shows what the merged CIM shows', async () => {
    const parent = temporaryFileSystem();
    let compared = 0;
    const layersOf = stack
      .map((layers) => layers.map((layer) => layer.map(withoutStream)))
      .filter((layers) => layers.length > 1 && expected(layers) !== undefined && !linksForward(layers));
    await fc.assert(
      fc.asyncProperty(layersOf, async (layers) => {
        const folder = mkdtempSync(join(parent, 's'));
        const tars = layers.map((layer) => tarOfOperations(layer));
        const folders = tars.map((_, index) => join(folder, `unpacked${index}`));
        if (!tars.every((tar, index) => unpack(tar, folders[index]!))) return;
        const sources = (await tryImport(tars, folder))?.reverse();
        if (sources === undefined) return;
        const shown = showOverlay(folders, join(folder, 'mount'));
        const file = join(folder, 'merged.bcim');
        mergeBlockCims({ file, name: 'm', regionGuid: '11111111-0000-4000-8000-000000000000', sources });
        publishContainer(file);
        expect([...shown]).toEqual([...onlyFiles(dumpCim(file, { sources }))]);
        compared++;
      }),
      { numRuns: 120 },
    );
    expect(compared).toBeGreaterThan(20);
  });
});

function withoutStream(operation: Operation): Operation {
  return operation.op === 'file' ? { ...operation, stream: undefined } : operation;
}

/** What the kernel shows of layers given base first. */
function showOverlay(folders: readonly string[], target: string): Map<string, DumpedFile> {
  mkdirSync(target);
  const options = `ro,lowerdir=${folders.toReversed().join(':')}`;
  execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', options, target]);
  try {
    return dumpTree(target);
  } finally {
    execFileSync('umount', [target]);
  }
}

async function tryImport(tars: readonly Buffer[], folder: string): Promise<string[] | undefined> {
  try {
    return (await importIntoBlockCims(tars, folder)).files;
  } catch (error) {
    expect(error).toMatchObject({ code: 'corrupt' });
    return undefined;
  }
}
