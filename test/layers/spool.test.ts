import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Spool } from '../../src/layers/spool.ts';

let directory: string;
let spool: Spool;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cimlet-spool-'));
  spool = new Spool(directory);
});
afterEach(() => {
  spool.close();
  rmSync(directory, { recursive: true, force: true });
});

function add(content: Buffer) {
  const { file, stream } = spool.add(content.length);
  for (let at = 0; at < content.length; at += 700_000) stream.write(content.subarray(at, at + 700_000));
  stream.close();
  return file;
}

it('gives back each file, and leaves no name in the directory', () => {
  const contents = [
    Buffer.from('one'),
    Buffer.alloc(0),
    Buffer.alloc(3_000_000, 'three'),
    Buffer.from('four'),
  ];
  const files = contents.map(add);
  expect(readdirSync(directory)).toEqual([]);
  for (const [index, file] of files.entries()) {
    expect(Buffer.concat([...spool.read(file)]).equals(contents[index]!)).toBe(true);
  }
});

it('makes no file when there is nothing to keep', () => {
  spool = new Spool(join(directory, 'missing'));
  expect([...spool.read(add(Buffer.alloc(0)))]).toEqual([]);
});

it('holds streams to their size', () => {
  const wrong = { code: 'failed-precondition', message: expect.stringContaining('declared size of 3 bytes') };
  const { stream } = spool.add(3);
  stream.write(Buffer.from('ab'));
  expect(() => stream.close()).toThrow(expect.objectContaining(wrong));
  expect(() => stream.write(Buffer.from('cd'))).toThrow(expect.objectContaining(wrong));
});

it('says where it could not write', () => {
  const missing = join(directory, 'missing');
  spool = new Spool(missing);
  expect(() => add(Buffer.from('x'))).toThrow(
    expect.objectContaining({
      code: 'not-found',
      message: expect.stringContaining(`spool files of the layer in ${missing}`),
    }),
  );
});
