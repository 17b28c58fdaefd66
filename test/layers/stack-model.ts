/** Stacks of layers by random operations, and a plain model of what they should give. */

import fc from 'fast-check';
import type { LayerMetadata, LayerTarWriter } from '../../src/layers/layer-tar.ts';
import { type DumpedFile, makeLayer } from '../tar/tar-helpers.ts';

export type Operation =
  | { op: 'file'; path: string; content: string; stream: string | undefined }
  | { op: 'directory' | 'symlink' | 'whiteout' | 'opaque'; path: string }
  | { op: 'hard-link'; path: string; target: string };

interface ModelFile {
  kind: DumpedFile['kind'];
  content: string;
  streams: string[];
}

export class Refused extends Error {}

/** A tree as a flat map, with the rules of OCI layers said as plainly as possible. */
export class Model {
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
/** Layers of random operations, base first. */
export const stack = fc.array(fc.array(operation, { maxLength: 8 }), { minLength: 1, maxLength: 4 });

/** Adds an operation to a layer's tar. */
export function writeOperation(
  layer: LayerTarWriter,
  operation: Operation,
  metadata: LayerMetadata = {},
): void {
  switch (operation.op) {
    case 'file':
      layer.file(operation.path, operation.content, metadata);
      if (operation.stream !== undefined) layer.stream(operation.path, 's', operation.stream);
      return;
    case 'directory':
      layer.directory(operation.path, metadata);
      return;
    case 'symlink':
      layer.symlink(operation.path, 'somewhere', metadata);
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
export function expected(layers: readonly Operation[][]): Map<string, DumpedFile> | undefined {
  const model = new Model();
  try {
    for (const layer of layers) model.apply(layer);
  } catch (error) {
    if (error instanceof Refused) return undefined;
    throw error;
  }
  return model.dump();
}

/** A link to a file that the same layer adds later means another file in a block CIM than in a fork. */
export function linksForward(layers: readonly Operation[][]): boolean {
  return layers.some((layer) =>
    layer.some(
      (operation, index) =>
        operation.op === 'hard-link' &&
        layer
          .slice(index + 1)
          .some(({ path }) => operation.target.startsWith(path) || operation.path.startsWith(path)),
    ),
  );
}

/** Without what an import adds by itself. */
export function onlyFiles(dump: Map<string, DumpedFile>): Map<string, DumpedFile> {
  return new Map([...dump].filter(([path]) => path !== 'Hives' && path !== 'layout'));
}

/** A layer's tar. */
export function tarOfOperations(
  operations: readonly Operation[],
  metadataOf?: (index: number) => LayerMetadata,
): Buffer {
  return makeLayer((layer) => {
    for (const [index, operation] of operations.entries())
      writeOperation(layer, operation, metadataOf?.(index));
  });
}
