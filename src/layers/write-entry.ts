import type { FileInfo, StreamInfo } from '../cim/types.ts';
import { CimletError } from '../errors.ts';
import { quoteName } from '../tar/tar-format.ts';
import { decodeExtendedAttributes } from './extended-attributes.ts';
import type { LayerMetadata, LayerTarWriter } from './layer-tar.ts';
import { decodeReparse } from './reparse.ts';

/** A file, directory or link, wherever it is stored. */
export interface EntrySource {
  /** What it is exported from, for errors. */
  from: string;
  info: FileInfo;
  streams: readonly StreamInfo[];
  /** Bytes of the file, or of one of its alternate streams. */
  read(stream?: string): Iterable<Uint8Array>;
}

/** Writes it under a path, with its alternate streams; yields whenever something is written. */
export function* writeEntry(tar: LayerTarWriter, path: string, source: EntrySource): Generator<void> {
  const { info, streams } = source;
  const metadata = metadataOf(path, source);
  if (info.reparseTag !== 0) writeLink(tar, path, source, metadata);
  else if (info.isDirectory) tar.directory(path, metadata);
  else {
    tar.beginFile(path, info.size, metadata);
    yield* writeData(tar, source.read());
  }
  for (const { name, size } of streams) {
    tar.beginStream(path, name, size);
    yield* writeData(tar, source.read(name));
  }
  yield;
}

function* writeData(tar: LayerTarWriter, chunks: Iterable<Uint8Array>): Generator<void> {
  for (const chunk of chunks) {
    tar.write(chunk);
    yield;
  }
}

function writeLink(
  tar: LayerTarWriter,
  path: string,
  { from, info }: EntrySource,
  metadata: LayerMetadata,
): void {
  const link = info.reparseData && decodeReparse(info.reparseData);
  if (link === undefined) {
    const tag = `0x${info.reparseTag.toString(16)}`;
    throw refuse(from, path, `its reparse point (tag ${tag}) is no symlink or mount point`);
  }
  if (link.isMountPoint) tar.mountPoint(path, link.target, metadata);
  else tar.symlink(path, link.target, metadata, info.isDirectory);
}

function metadataOf(path: string, { from, info }: EntrySource): LayerMetadata {
  const { attributes, creationTime, lastWriteTime, changeTime, lastAccessTime, securityDescriptor } = info;
  const chain = info.extendedAttributes;
  const extendedAttributes = chain === undefined ? [] : decodeExtendedAttributes(chain);
  if (extendedAttributes === undefined) throw refuse(from, path, 'its extended attributes are malformed');
  for (const { name } of extendedAttributes) {
    if (name.includes('='))
      throw refuse(from, path, `its extended attribute ${quoteName(name)} has a '=' in its name`);
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

function refuse(from: string, path: string, reason: string): CimletError {
  return new CimletError('failed-precondition', `export ${quoteName(path)} from ${from}: ${reason}`, {
    hint: 'a layer tar has no place for it',
  });
}
