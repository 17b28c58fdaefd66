import type { CimReader } from '../cim/reader.ts';
import type { FileId, FileInfo } from '../cim/types.ts';
import { CimletError } from '../errors.ts';
import { decodeExtendedAttributes } from './extended-attributes.ts';
import { type LayerChange, listChanges } from './layer-changes.ts';
import { type LayerMetadata, LayerTarWriter } from './layer-tar.ts';
import { decodeReparse } from './reparse.ts';
import { quoteName } from './tar-format.ts';

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
      yield* writeEntry(cim, tar, change.path, change.id);
      break;
  }
  yield;
}

function* writeEntry(cim: CimReader, tar: LayerTarWriter, path: string, id: FileId): Generator<void> {
  const info = cim.stat(id);
  const metadata = metadataOf(cim, path, info);
  if (info.reparseTag !== 0) writeLink(cim, tar, path, info, metadata);
  else if (info.isDirectory) tar.directory(path, metadata);
  else {
    tar.beginFile(path, info.size, metadata);
    yield* writeData(cim, tar, id, undefined);
  }
  for (const { name, size } of cim.streams(id)) {
    tar.beginStream(path, name, size);
    yield* writeData(cim, tar, id, name);
  }
}

function* writeData(
  cim: CimReader,
  tar: LayerTarWriter,
  id: FileId,
  stream: string | undefined,
): Generator<void> {
  for (const chunk of cim.streamChunks(id, stream)) {
    tar.write(chunk);
    yield;
  }
}

function writeLink(
  cim: CimReader,
  tar: LayerTarWriter,
  path: string,
  info: FileInfo,
  metadata: LayerMetadata,
): void {
  const link = info.reparseData && decodeReparse(info.reparseData);
  if (link === undefined) {
    const tag = `0x${info.reparseTag.toString(16)}`;
    throw refuse(cim, path, `its reparse point (tag ${tag}) is no symlink or mount point`);
  }
  if (link.isMountPoint) tar.mountPoint(path, link.target, metadata);
  else tar.symlink(path, link.target, metadata, info.isDirectory);
}

function metadataOf(cim: CimReader, path: string, info: FileInfo): LayerMetadata {
  const { attributes, creationTime, lastWriteTime, changeTime, lastAccessTime, securityDescriptor } = info;
  const chain = info.extendedAttributes;
  const extendedAttributes = chain === undefined ? [] : decodeExtendedAttributes(chain);
  if (extendedAttributes === undefined) throw refuse(cim, path, 'its extended attributes are malformed');
  for (const { name } of extendedAttributes) {
    if (name.includes('='))
      throw refuse(cim, path, `its extended attribute ${quoteName(name)} has a '=' in its name`);
  }
  return {
    attributes,
    creationTime,
    lastWriteTime,
    changeTime,
    lastAccessTime,
    extendedAttributes,
    ...(securityDescriptor && { securityDescriptor }),
  };
}

function refuse(cim: CimReader, path: string, reason: string): CimletError {
  return new CimletError('failed-precondition', `export ${quoteName(path)} from ${cim.path}: ${reason}`, {
    hint: 'a layer tar has no place for it',
  });
}
