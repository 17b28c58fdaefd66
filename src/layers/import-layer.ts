import { tmpdir } from 'node:os';
import { CimletError } from '../errors.ts';
import { TarReader } from '../tar/tar-reader.ts';
import { blockPolicy, wcifsPolicy } from './block-policy.ts';
import type { BlockCimWriter, CimWriter } from './cim-writer.ts';
import { forkedPolicy } from './forked-policy.ts';
import { DELTA_PATHS, type HiveMerger } from './hives.ts';
import { LayerProcessor } from './layer-processor.ts';
import type { LowerView } from './lower-view.ts';
import { ownHiveMerger } from './own-hives.ts';

export interface ImportOptions {
  /** Where the spool file of hives goes, nameless: beside the layer. The system's temporary directory unless told. */
  spoolDirectory?: string | undefined;
  /** Merges registry deltas with the hives below. cimlet's own code unless told. */
  hiveMerger?: HiveMerger | undefined;
  /** Looked at with every chunk; an abort becomes CimletError `cancelled`. */
  signal?: AbortSignal | undefined;
  /** Called after each tar entry's header with its name, as the tar spells it. */
  onEntry?: ((path: string) => void) | undefined;
}

export interface ForkedImportOptions extends ImportOptions {
  /** The layer has no parent: it gets `Hives/` and `layout`. */
  isBase: boolean;
  /** The layers below, to merge registry deltas with their hives; without them deltas stay unmerged, with a warning. */
  lower?: LowerView | undefined;
}

export interface BlockImportOptions extends ImportOptions {
  /** The layers below; absent for a base layer, which gets `Hives/` and `layout`. */
  lower: LowerView | undefined;
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
  options: ForkedImportOptions,
): Promise<ImportResult> {
  const processor = new LayerProcessor(writer, forkedPolicy(writer), {
    ...options,
    ...defaults(options),
  });
  const result = await run(tar, processor, options);
  return options.isBase || options.lower !== undefined
    ? result
    : withWarning(result, unmergedWarning(processor));
}

/**
 * Writes a layer tar into a block CIM that holds only this layer; otherwise as `importLayer`. What it takes away of the
 * layers below become tombstones, and links to their files merge links. A whiteout of what the layers below don't
 * have is an error.
 */
export async function importBlockLayer(
  tar: AsyncIterable<Uint8Array>,
  writer: BlockCimWriter,
  options: BlockImportOptions,
): Promise<ImportResult> {
  const isBase = options.lower === undefined;
  const processor = new LayerProcessor(writer, blockPolicy(writer, options.lower), {
    ...options,
    isBase,
    ...defaults(options),
  });
  const result = await run(tar, processor, options);
  return isBase || processor.added('UtilityVM') === undefined ? result : withWarning(result, UVM_WARNING);
}

/**
 * Writes a layer tar for Windows to import as a WCIFS layer; otherwise as `importBlockLayer`. Hives, utility VM and what a
 * base layer gets are Windows' business; a whiteout of what isn't there is fine.
 */
export async function importWcifsLayer(
  tar: AsyncIterable<Uint8Array>,
  writer: BlockCimWriter,
  options: BlockImportOptions,
): Promise<ImportResult> {
  const processor = new LayerProcessor(writer, wcifsPolicy(writer, options.lower), {
    ...options,
    ...defaults(options),
    isBase: options.lower === undefined,
    hiveMerger: undefined,
  });
  return run(tar, processor, options);
}

const UVM_WARNING = 'utility VM files in a layer above the base are kept, but not merged with those below';

function defaults({ spoolDirectory = tmpdir(), hiveMerger = ownHiveMerger }: ImportOptions) {
  return { spoolDirectory, hiveMerger };
}

async function run(
  tar: AsyncIterable<Uint8Array>,
  processor: LayerProcessor,
  { signal, lower }: { signal?: AbortSignal | undefined; lower?: LowerView | undefined },
): Promise<ImportResult> {
  try {
    const reader = new TarReader(processor);
    for await (const chunk of tar) {
      refuseCancelled(signal);
      reader.write(chunk);
    }
    refuseCancelled(signal);
    reader.finish();
    const warnings = processor.complete(lower);
    return { files: processor.files, bytes: processor.bytes, warnings };
  } finally {
    processor.close();
  }
}

function refuseCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted)
    throw new CimletError('cancelled', 'import layer: cancelled', { cause: signal.reason });
}

function unmergedWarning(processor: LayerProcessor): string | undefined {
  const deltas = DELTA_PATHS.filter((path) => processor.added(path) !== undefined);
  return deltas.length === 0
    ? undefined
    : `registry deltas are kept but not merged yet: ${deltas.join(', ')}`;
}

function withWarning(result: ImportResult, warning: string | undefined): ImportResult {
  return warning === undefined ? result : { ...result, warnings: [...result.warnings, warning] };
}
