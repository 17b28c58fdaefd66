import { CimletError } from '../errors.ts';
import { completeBaseLayer, DELTA_PATHS } from './base-layer.ts';
import type { CimWriter } from './cim-writer.ts';
import { forkedPolicy } from './forked-policy.ts';
import { LayerProcessor } from './layer-processor.ts';
import { TarReader } from './tar-reader.ts';

export interface ImportOptions {
  /** The layer has no parent: it gets `Hives/` and `layout`. */
  isBase: boolean;
  /** Looked at with every chunk; an abort becomes CimletError `cancelled`. */
  signal?: AbortSignal | undefined;
  /** Called after each tar entry's header with its name, as the tar spells it. */
  onEntry?: ((path: string) => void) | undefined;
}

export interface ImportResult {
  /** Names written: files, directories, links. */
  files: number;
  /** Bytes of data, alternate streams included. */
  bytes: number;
  /** Sentences without a full stop, for an operator. */
  warnings: string[];
}

/**
 * Writes an uncompressed Windows layer tar into a CIM that `writer` has forked from the parent's (or begun empty). The
 * stream is read to its end, so that whoever digests it sees every byte. The writer is neither finished nor
 * closed: on any error the caller closes it, and nothing becomes visible.
 *
 * Throws CimletError `corrupt`, naming the entry and its offset in the tar, for whatever breaks the rules of tars or of
 * Windows layers; what the stream and the writer throw otherwise passes through.
 */
export async function importLayer(
  tar: AsyncIterable<Uint8Array>,
  writer: CimWriter,
  options: ImportOptions,
): Promise<ImportResult> {
  const processor = new LayerProcessor(writer, forkedPolicy(writer), options);
  const reader = new TarReader(processor);
  for await (const chunk of tar) {
    refuseCancelled(options.signal);
    reader.write(chunk);
  }
  refuseCancelled(options.signal);
  reader.finish();
  const warnings = options.isBase ? completeBaseLayer(writer) : deltaWarnings(processor);
  return { files: processor.files, bytes: processor.bytes, warnings };
}

function refuseCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted)
    throw new CimletError('cancelled', 'import layer: cancelled', { cause: signal.reason });
}

function deltaWarnings(processor: LayerProcessor): string[] {
  const deltas = DELTA_PATHS.filter((path) => processor.added(path));
  return deltas.length === 0 ? [] : [`registry deltas are kept but not merged yet: ${deltas.join(', ')}`];
}
