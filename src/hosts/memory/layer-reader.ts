/** Reads real layer tars for the in-memory host: contents and names, whiteouts and hard links; no metadata. */

import { CimletError } from '../../errors.ts';
import { openLayerStream } from '../../images/decode.ts';
import { type LayerEntry, readLayerEntry } from '../../layers/layer-entry.ts';
import type { TarHeader } from '../../tar/tar-format.ts';
import { type TarHandler, TarReader } from '../../tar/tar-reader.ts';
import type { DiffId, EffectContext, LayerBlob } from '../host.ts';
import type { LayerTree } from './stored-layer.ts';

export async function readLayerTree(
  request: { blob: LayerBlob; diffId: DiffId; parent: LayerTree | undefined },
  context: EffectContext,
): Promise<LayerTree> {
  const builder = new TreeBuilder(request.parent ?? new Map());
  const reader = new TarReader(builder);
  const chunks = openLayerStream(request.blob, {
    diffId: request.diffId,
    signal: context.signal,
    onProgress: (done, total) => context.progress?.({ phase: 'unpacking', done, total }),
  });
  for await (const chunk of chunks) reader.write(chunk);
  reader.finish();
  return builder.tree();
}

class TreeBuilder implements TarHandler {
  readonly #lower: Map<string, Uint8Array | undefined>;
  readonly #own = new Map<string, Uint8Array | undefined>();
  #path: string | undefined;
  #chunks: Uint8Array[] = [];

  constructor(parent: LayerTree) {
    this.#lower = new Map(parent);
  }

  entry(header: TarHeader): void {
    const entry = readLayerEntry(header);
    this.#path = entry.kind === 'file' ? entry.path : undefined;
    this.#chunks = [];
    this.#apply(entry);
  }

  data(chunk: Uint8Array): void {
    this.#chunks.push(Uint8Array.from(chunk));
  }

  end(): void {
    if (this.#path !== undefined) this.#own.set(this.#path, Buffer.concat(this.#chunks));
  }

  tree(): LayerTree {
    return new Map([...this.#lower, ...this.#own]);
  }

  #apply(entry: LayerEntry): void {
    switch (entry.kind) {
      case 'directory':
        this.#own.set(entry.path, undefined);
        return;
      case 'link':
        this.#own.set(entry.path, new Uint8Array(0));
        return;
      case 'hard-link': {
        const content = this.#own.get(entry.target) ?? this.#lower.get(entry.target);
        if (content === undefined)
          throw new CimletError('corrupt', `hard link ${entry.path}: there is no file ${entry.target}`);
        this.#own.set(entry.path, content);
        return;
      }
      case 'whiteout':
        this.#lower.delete(entry.path);
        this.#emptyLower(entry.path);
        return;
      case 'opaque':
        this.#emptyLower(entry.path);
        return;
    }
  }

  #emptyLower(path: string): void {
    for (const lower of this.#lower.keys()) if (lower.startsWith(`${path}/`)) this.#lower.delete(lower);
  }
}
