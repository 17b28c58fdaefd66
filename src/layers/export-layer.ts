import type { CimReader } from '../cim/reader.ts';
import type { FileId } from '../cim/types.ts';
import { CimletError } from '../errors.ts';
import { type LayerChange, listChanges } from './layer-changes.ts';
import { LayerTarWriter } from './layer-tar.ts';
import { type EntrySource, writeEntry } from './write-entry.ts';

export interface ExportOptions {
  /** The CIM that a forked CIM was forked from: only what differs is exported. Base layers and block CIMs have none. */
  parent?: CimReader | undefined;
  /** Looked at with every entry and chunk; an abort becomes CimletError `cancelled`. */
  signal?: AbortSignal | undefined;
}

/**
 * Yields one layer as an uncompressed Windows layer tar (records as go-winio's backuptar writes them), from the CIM
 * that an import made of it. Entries come in the order of file IDs, so that importing the tar again gives the same
 * bytes; of a layer that wrote one name several times, only the last file is left to export, and importing gives the same files.
 *
 * Memory is bounded by the number of names. Errors: `failed-precondition` for what no tar can hold, `corrupt` for a
 * malformed CIM.
 */
export function* exportLayer(cim: CimReader, { parent, signal }: ExportOptions = {}): Generator<Uint8Array> {
  const chunks: Uint8Array[] = [];
  const tar = new LayerTarWriter((bytes) => chunks.push(bytes));
  for (const change of listChanges(cim, parent)) {
    for (const _ of writeChange(cim, tar, change)) {
      if (signal?.aborted)
        throw new CimletError('cancelled', 'export layer: cancelled', { cause: signal.reason });
      yield* chunks.splice(0);
    }
  }
  tar.finish();
  yield* chunks.splice(0);
}

/** Yields whenever something is written. */
function* writeChange(cim: CimReader, tar: LayerTarWriter, change: LayerChange): Generator<void> {
  switch (change.kind) {
    case 'whiteout':
      tar.whiteout(change.path);
      break;
    case 'opaque':
      tar.opaque(change.path);
      break;
    case 'hard-link':
      tar.hardLink(change.path, change.target);
      break;
    case 'entry':
      yield* writeEntry(tar, change.path, entryOf(cim, change.id));
      break;
  }
  yield;
}

function entryOf(cim: CimReader, id: FileId): EntrySource {
  return {
    from: cim.path,
    info: cim.stat(id),
    streams: cim.streams(id),
    read: (stream) => cim.streamChunks(id, stream),
  };
}
