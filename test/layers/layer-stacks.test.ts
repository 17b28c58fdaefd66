/** Random stacks of layers must equal a plain model, in memory and in real forked CIMs; damage must never crash. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { verifyCim } from '../../src/cim/verify.ts';
import { CimletError } from '../../src/errors.ts';
import { importLayer } from '../../src/layers/import-layer.ts';
import { MemoryCimWriter } from '../support/memory-cim-writer.ts';
import { dumpMemory, importIntoCims, importStack, inChunks, makeLayer } from '../tar/tar-helpers.ts';
import { expected, onlyFiles, stack, tarOfOperations } from './stack-model.ts';

describe('random stacks', () => {
  it('equal the model, or are refused as the model refuses them', async () => {
    let accepted = 0;
    await fc.assert(
      fc.asyncProperty(stack, async (layers) => {
        const tars = layers.map((layer) => tarOfOperations(layer));
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
        const tars = layers.map((layer) => tarOfOperations(layer));
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
