/** Random histories of images, against a plain model in memory. */

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { CimReader } from '../../src/cim/reader.ts';
import { FileAttribute, type FileId, type FileMetadata } from '../../src/cim/types.ts';
import { verifyCim } from '../../src/cim/verify.ts';
import type { CimWriter } from '../../src/cim/writer.ts';
import { patternBytes, readAll, temporaryDirectories, withReader, writeImage } from './fixture.ts';

const temporary = temporaryDirectories();

interface Node {
  metadata: FileMetadata;
  data: Buffer;
  streams: Map<string, Buffer>;
  children: Map<string, { name: string; node: Node }> | undefined;
}

type Step =
  | { do: 'file'; path: string; data: Buffer; chunk: number; metadata: FileMetadata }
  | { do: 'directory'; path: string; metadata: FileMetadata }
  | { do: 'link'; path: string; existing: string }
  | { do: 'stream'; path: string; name: string; data: Buffer }
  | { do: 'delete'; path: string };

const name = fc.constantFrom('a', 'A', 'b', 'B', 'é', 'É', 'c.txt', '日');
const path = fc.array(name, { minLength: 1, maxLength: 3 }).map((names) => names.join('/'));
const data = fc
  .record({ size: fc.constantFrom(0, 1, 8, 100, 4095, 4096, 5000, 12_288), seed: fc.nat(3) })
  .map(({ size, seed }) => (seed === 3 ? Buffer.alloc(size) : patternBytes(size, seed)));
const time = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const attributes = fc.constantFrom(0, 0x1, 0x2, 0x4, 0x20, 0x200, 0x27);
const metadata = (size: number, extra: number) =>
  fc
    .record({
      attributes: attributes.map((bits) => bits | extra),
      creationTime: time,
      lastWriteTime: time,
      changeTime: time,
      lastAccessTime: time,
      reparseData: fc.option(fc.constant(Buffer.from('0c0000a00400000074657374', 'hex')), { nil: undefined }),
      extendedAttributes: fc.option(fc.constant(Buffer.from('000000000001010041004200', 'hex')), {
        nil: undefined,
      }),
    })
    .map((fields): FileMetadata => ({ ...fields, size }));

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc
      .tuple(path, data, fc.constantFrom(1000, 4096, 100_000))
      .chain(([path, data, chunk]) =>
        metadata(data.length, 0).map((metadata): Step => ({ do: 'file', path, data, chunk, metadata })),
      ),
  },
  {
    weight: 4,
    arbitrary: fc
      .tuple(path, metadata(0, FileAttribute.directory))
      .map(([path, metadata]): Step => ({ do: 'directory', path, metadata })),
  },
  {
    weight: 2,
    arbitrary: fc.tuple(path, path).map(([path, existing]): Step => ({ do: 'link', path, existing })),
  },
  {
    weight: 2,
    arbitrary: fc
      .tuple(path, name, data)
      .map(([path, name, data]): Step => ({ do: 'stream', path, name, data })),
  },
  { weight: 2, arbitrary: path.map((path): Step => ({ do: 'delete', path })) },
);

class Model {
  root: Node = directoryNode({
    attributes: FileAttribute.directory,
    size: 0,
    creationTime: 0n,
    lastWriteTime: 0n,
    changeTime: 0n,
    lastAccessTime: 0n,
  });

  find(path: string): Node | undefined {
    let node: Node | undefined = this.root;
    for (const name of path.split('/').filter(Boolean)) node = node?.children?.get(name.toUpperCase())?.node;
    return node;
  }

  /** False when the writer must refuse the step. */
  apply(step: Step): boolean {
    const names = step.path.split('/');
    const name = names.pop()!;
    const parent = this.find(names.join('/'))?.children;
    const existing = this.find(step.path);
    const key = name.toUpperCase();
    switch (step.do) {
      case 'file':
        if (parent === undefined || existing?.children) return false;
        parent.set(key, {
          name,
          node: { metadata: step.metadata, data: step.data, streams: new Map(), children: undefined },
        });
        return true;
      case 'directory':
        if (parent === undefined || (existing !== undefined && existing.children === undefined)) return false;
        parent.set(key, { name, node: existing ?? directoryNode(step.metadata) });
        if (existing) Object.assign(existing, { metadata: step.metadata, streams: new Map() });
        return true;
      case 'link': {
        const target = this.find(step.existing);
        if (parent === undefined || target === undefined || target.children || existing?.children)
          return false;
        parent.set(key, { name, node: target });
        return true;
      }
      case 'stream': {
        if (existing === undefined) return false;
        existing.streams.set(step.name.toUpperCase(), step.data);
        return true;
      }
      case 'delete':
        parent?.delete(key);
        return true;
    }
  }
}

function directoryNode(metadata: FileMetadata): Node {
  return { metadata, data: Buffer.alloc(0), streams: new Map(), children: new Map() };
}

function perform(writer: CimWriter, step: Step): void {
  const fill = (stream: { write(data: Uint8Array): void; close(): void }, data: Buffer, chunk: number) => {
    for (let done = 0; done < data.length; done += chunk) stream.write(data.subarray(done, done + chunk));
    stream.close();
  };
  if (step.do === 'file') fill(writer.createFile(step.path, step.metadata), step.data, step.chunk);
  else if (step.do === 'directory') writer.createFile(step.path, step.metadata).close();
  else if (step.do === 'link') writer.createHardLink(step.path, step.existing);
  else if (step.do === 'stream')
    fill(writer.createAlternateStream(step.path, step.name, step.data.length), step.data, 5000);
  else writer.deletePath(step.path);
}

/** Compares everything below a directory; `ids` maps the model's files to the image's, to see hard links. */
function compare(reader: CimReader, id: FileId, node: Node, ids: Map<Node, FileId>, path: string): void {
  expect(ids.get(node) ?? id, path).toBe(id);
  ids.set(node, id);
  const { reparseData, extendedAttributes, attributes, ...rest } = node.metadata;
  const info = reader.stat(id);
  expect(info, path).toMatchObject(rest);
  expect(info.attributes, path).toBe(attributes | (reparseData ? FileAttribute.reparsePoint : 0));
  expect([info.reparseData, info.extendedAttributes], path).toEqual([reparseData, extendedAttributes]);
  expect(new Set(reader.streams(id).map(({ name }) => name.toUpperCase())), path).toEqual(
    new Set(node.streams.keys()),
  );
  for (const [name, data] of node.streams)
    expect(readAll(reader, id, name).equals(data), `${path}:${name}`).toBe(true);
  if (node.children === undefined) {
    expect(readAll(reader, id).equals(node.data), path).toBe(true);
    return;
  }
  const entries = [...reader.entries(id)];
  expect(entries.map(({ name }) => name).sort(), path).toEqual(
    [...node.children.values()].map(({ name }) => name).sort(),
  );
  for (const entry of entries)
    compare(
      reader,
      entry.id,
      node.children.get(entry.name.toUpperCase())!.node,
      ids,
      `${path}/${entry.name}`,
    );
}

function writeHistory(directory: string, layers: Step[][], model = new Model()): Model {
  layers.forEach((steps, n) => {
    writeImage(directory, n, (writer) => {
      for (const step of steps) {
        if (model.apply(step)) perform(writer, step);
        else expect(() => perform(writer, step)).toThrow(expect.objectContaining({ name: 'CimletError' }));
        expect(writer.stat(step.path)?.size).toBe(model.find(step.path)?.metadata.size);
      }
    });
  });
  return model;
}

describe('an image and its forks', () => {
  it('hold what a plain model holds, verify, and come out the same again', () => {
    fc.assert(
      fc.property(fc.array(fc.array(step, { maxLength: 20 }), { minLength: 1, maxLength: 4 }), (layers) => {
        const directory = temporary();
        const model = writeHistory(directory, layers);
        const last = layers.length - 1;
        withReader(directory, last, (reader) => compare(reader, reader.root, model.root, new Map(), ''));
        for (let n = 0; n <= last; n++) expect(verifyCim(join(directory, `image${n}.cim`))).toEqual([]);
        const again = temporary();
        writeHistory(again, layers);
        for (const file of readdirSync(directory))
          expect(readFileSync(join(again, file)).equals(readFileSync(join(directory, file))), file).toBe(
            true,
          );
      }),
      { numRuns: 40 },
    );
  }, 120_000);
});
