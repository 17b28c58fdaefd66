/** Random stacks of layers must equal a plain model, in memory and in real forked CIMs; damage must never crash. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { verifyCim } from '../../src/cim/verify.ts';
import { CimletError } from '../../src/errors.ts';
import { importLayer } from '../../src/layers/import-layer.ts';
import type { LayerTarWriter } from '../../src/layers/layer-tar.ts';
import { MemoryCimWriter } from '../support/memory-cim-writer.ts';
import {
  type DumpedFile,
  dumpMemory,
  importIntoCims,
  importStack,
  inChunks,
  makeLayer,
} from './tar-helpers.ts';

type Operation =
  | { op: 'file'; path: string; content: string; stream: string | undefined }
  | { op: 'directory' | 'symlink' | 'whiteout' | 'opaque'; path: string }
  | { op: 'hard-link'; path: string; target: string };

interface ModelFile {
  kind: DumpedFile['kind'];
  content: string;
  streams: string[];
}

class Refused extends Error {}

/** A tree as a flat map, with the rules of OCI layers said as plainly as possible. */
class Model {
  readonly files = new Map<string, ModelFile>();
  /** What the present layer has added or entered. */
  #own = new Set<string>();

  apply(layer: readonly Operation[]): void {
    this.#own = new Set();
    for (const operation of layer) this.#operate(operation);
  }

  #operate(operation: Operation): void {
    const { op, path } = operation;
    if (op === 'whiteout') {
      if (!this.#own.has(path)) this.#remove(path);
      else if (this.files.get(path)?.kind === 'directory') this.#empty(path);
      return;
    }
    const parents = path.split('/').map((_, index, names) => names.slice(0, index).join('/'));
    for (const directory of [...parents.slice(1), ...(op === 'opaque' ? [path] : [])]) {
      const there = this.files.get(directory);
      if (there !== undefined && there.kind !== 'directory') throw new Refused(directory);
      if (there === undefined) this.files.set(directory, { kind: 'directory', content: '', streams: [] });
      this.#own.add(directory);
    }
    if (op === 'opaque') {
      this.#empty(path);
      return;
    }
    if (op === 'hard-link' && path === operation.target) throw new Refused(path);
    const keeps = op === 'directory' && this.files.get(path)?.kind === 'directory';
    if (!keeps) this.#remove(path);
    this.#own.add(path);
    if (op === 'hard-link') {
      const target = this.files.get(operation.target);
      if (target === undefined || target.kind === 'directory') throw new Refused(operation.target);
      this.files.set(path, target);
    } else if (op === 'symlink') this.files.set(path, { kind: 'link', content: 'somewhere', streams: [] });
    else if (op === 'file') {
      const streams = operation.stream === undefined ? [] : [`s=${operation.stream}`];
      this.files.set(path, { kind: 'file', content: operation.content, streams });
    } else if (!keeps) this.files.set(path, { kind: 'directory', content: '', streams: [] });
  }

  #remove(path: string): void {
    for (const name of [...this.files.keys()]) {
      if (name !== path && !name.startsWith(`${path}/`)) continue;
      this.files.delete(name);
      this.#own.delete(name);
    }
  }

  #empty(path: string): void {
    for (const name of [...this.files.keys()]) {
      if (name.startsWith(`${path}/`) && !this.#own.has(name)) this.files.delete(name);
    }
  }

  dump(): Map<string, DumpedFile> {
    const first = new Map<ModelFile, string>();
    const sorted = [...this.files].sort(([a], [b]) => (a < b ? -1 : 1));
    return new Map(
      sorted.map(([path, file]) => {
        if (!first.has(file)) first.set(file, path);
        return [path, { ...file, same: first.get(file)! }];
      }),
    );
  }
}

const name = fc.constantFrom('a', 'b', 'ü');
const path = fc.array(name, { minLength: 1, maxLength: 3 }).map((names) => `Files/${names.join('/')}`);
const content = fc.oneof(fc.string({ maxLength: 20 }), fc.constant('big'.repeat(3000)));
const operation: fc.Arbitrary<Operation> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constant('file' as const),
      path,
      content,
      stream: fc.option(content, { nil: undefined }),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      op: fc.constantFrom('directory', 'symlink', 'whiteout', 'opaque', 'directory'),
      path,
    }),
  },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('hard-link' as const), path, target: path }) },
);
const stack = fc.array(fc.array(operation, { maxLength: 8 }), { minLength: 1, maxLength: 4 });

function write(layer: LayerTarWriter, operation: Operation): void {
  switch (operation.op) {
    case 'file':
      layer.file(operation.path, operation.content);
      if (operation.stream !== undefined) layer.stream(operation.path, 's', operation.stream);
      return;
    case 'directory':
      layer.directory(operation.path);
      return;
    case 'symlink':
      layer.symlink(operation.path, 'somewhere');
      return;
    case 'whiteout':
      layer.whiteout(operation.path);
      return;
    case 'opaque':
      layer.opaque(operation.path);
      return;
    case 'hard-link':
      layer.hardLink(operation.path, operation.target);
      return;
  }
}

/** The model's tree, or undefined when it refuses the stack. */
function expected(layers: readonly Operation[][]): Map<string, DumpedFile> | undefined {
  const model = new Model();
  try {
    for (const layer of layers) model.apply(layer);
  } catch (error) {
    if (error instanceof Refused) return undefined;
    throw error;
  }
  return model.dump();
}

function onlyFiles(dump: Map<string, DumpedFile>): Map<string, DumpedFile> {
  return new Map([...dump].filter(([path]) => path !== 'Hives' && path !== 'layout'));
}

describe('random stacks', () => {
  it('equal the model, or are refused as the model refuses them', async () => {
    let accepted = 0;
    await fc.assert(
      fc.asyncProperty(stack, async (layers) => {
        const tars = layers.map((operations) =>
          makeLayer((layer) => {
            for (const operation of operations) write(layer, operation);
          }),
        );
        const model = expected(layers);
        if (model === undefined) {
          await expect(importStack(tars)).rejects.toMatchObject({ code: 'corrupt' });
          return;
        }
        accepted++;
        expect(onlyFiles(dumpMemory((await importStack(tars)).writer))).toEqual(model);
      }),
      { numRuns: 3000 },
    );
    expect(accepted).toBeGreaterThan(300);
  });

  it('equal the model when written as real forked CIMs, which verify', async () => {
    await fc.assert(
      fc.asyncProperty(stack, async (layers) => {
        const model = expected(layers);
        fc.pre(model !== undefined);
        const tars = layers.map((operations) =>
          makeLayer((layer) => {
            for (const operation of operations) write(layer, operation);
          }),
        );
        const directory = mkdtempSync(join(tmpdir(), 'cimlet-stack-'));
        try {
          expect(onlyFiles(await importIntoCims(tars, directory))).toEqual(model);
          expect([...verifyCim(join(directory, `layer${layers.length - 1}.cim`))]).toEqual([]);
        } finally {
          rmSync(directory, { recursive: true, force: true });
        }
      }),
      { numRuns: 60 },
    );
  });
});

describe('damaged layers', () => {
  const layer = makeLayer((tar) => {
    tar.directory('Files', {
      securityDescriptor: Buffer.from('0100048000000000000000000000000000000000', 'hex'),
    });
    tar.file(`Files/${'long '.repeat(30)}name`, 'x'.repeat(600), { attributes: 0x21 });
    tar.stream(`Files/${'long '.repeat(30)}name`, 'stream', 'content');
    tar.file('Files/ea', '', { extendedAttributes: [{ name: 'A', value: Buffer.from('value') }] });
    tar.symlink('Files/link', 'C:\\target');
    tar.hardLink('Files/twin', 'Files/ea');
    tar.whiteout('Files/gone');
    tar.opaque('Files/dir');
  });

  const accept = async (tar: Uint8Array): Promise<boolean> => {
    try {
      await importLayer(inChunks(tar), new MemoryCimWriter(), { isBase: true });
      return true;
    } catch (error) {
      if (!(error instanceof CimletError)) throw error;
      expect(error.message).toMatch(/offset \d+/);
      return false;
    }
  };

  it('cut at any block end in one clear error, except between entries', async () => {
    expect(await accept(layer)).toBe(true);
    let accepted = 0;
    for (let length = 0; length < layer.length; length += 512) {
      if (await accept(layer.subarray(0, length))) accepted++;
    }
    // Before, between and after the eight entries, and within the end of the archive: what the digest is there for.
    expect(accepted).toBe(10);
  });

  it('with random bits flipped, checksums made right, never crash', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat(layer.length * 8 - 1), { minLength: 1, maxLength: 5 }),
        async (bits) => {
          const copy = Buffer.from(layer);
          for (const bit of bits) copy[bit >> 3]! ^= 1 << (bit & 7);
          await accept(copy);
          for (let block = 0; block < copy.length; block += 512) {
            // Only what looks like a header.
            if (copy.toString('latin1', block + 257, block + 262) !== 'ustar') continue;
            copy.fill(0x20, block + 148, block + 156);
            const sum = copy.subarray(block, block + 512).reduce((total, byte) => total + byte, 0);
            copy.write(`${sum.toString(8).padStart(6, '0')}\0 `, block + 148, 'latin1');
          }
          await accept(copy);
        },
      ),
      { numRuns: 1500 },
    );
  });
});
