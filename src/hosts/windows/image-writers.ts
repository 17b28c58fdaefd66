/** Layers written through cimfs.dll or cimwriter.dll. Calls block: they belong into a job's thread. */

import {
  type CimStream,
  type DirectoryEntry,
  FileAttribute,
  type FileInfo,
  type FileMetadata,
} from '../../cim/types.ts';
import type { BlockCimWriter, CimWriter, LayerWriter } from '../../layers/cim-writer.ts';
import type { LowerView } from '../../layers/lower-view.ts';
import type { CimImageHandle, CimStreamHandle, CimWriteCalls } from '../../native/windows/cim-calls.ts';
import { exactStream } from './exact-stream.ts';
import { ImageNames } from './image-names.ts';

/** What both kinds of image have in common. */
export abstract class ImageWriter implements LayerWriter {
  protected readonly calls: CimWriteCalls;
  protected readonly image: CimImageHandle;
  readonly #open = new Set<CimStreamHandle>();

  constructor(calls: CimWriteCalls, image: CimImageHandle) {
    this.calls = calls;
    this.image = image;
  }

  createFile(path: string, metadata: FileMetadata): CimStream {
    const isDirectory = (metadata.attributes & FileAttribute.directory) !== 0;
    const size = isDirectory ? 0 : metadata.size;
    return this.#stream(
      path,
      size,
      this.calls.createFile(this.image, nativePath(path), { ...metadata, size }),
    );
  }

  createAlternateStream(path: string, name: string, size: number): CimStream {
    const stream = `${nativePath(path)}:${name}:$DATA`;
    return this.#stream(`${path}:${name}`, size, this.calls.createAlternateStream(this.image, stream, size));
  }

  createHardLink(path: string, existing: string): void {
    this.calls.createHardLink(this.image, nativePath(path), nativePath(existing));
  }

  /** Closes what is open of a file that was never finished: an image is closed after its streams. */
  abandon(): void {
    for (const stream of this.#open) this.#close(stream);
  }

  /** Cimfs itself notices too few bytes only later, and names no file then. */
  #stream(name: string, size: number, stream: CimStreamHandle): CimStream {
    this.#open.add(stream);
    return exactStream(name, size, {
      write: (data) => this.calls.writeStream(stream, data),
      close: () => this.#close(stream),
    });
  }

  #close(stream: CimStreamHandle): void {
    this.#open.delete(stream);
    this.calls.closeStream(stream);
  }
}

/** An image that begins as its parent's; `lower` shows what that holds. */
export class ForkedImageWriter extends ImageWriter implements CimWriter {
  readonly #names: ImageNames;

  constructor(calls: CimWriteCalls, image: CimImageHandle, lower: LowerView | undefined) {
    super(calls, image);
    this.#names = new ImageNames(lower);
  }

  override createFile(path: string, metadata: FileMetadata): CimStream {
    const stream = super.createFile(path, metadata);
    this.#names.add(path, infoOf(metadata));
    return stream;
  }

  override createHardLink(path: string, existing: string): void {
    super.createHardLink(path, existing);
    const info = this.#names.stat(existing);
    if (info !== undefined) this.#names.add(path, info);
  }

  deletePath(path: string): boolean {
    if (!this.#names.delete(path)) return false;
    this.calls.deletePath(this.image, nativePath(path));
    return true;
  }

  stat(path: string): FileInfo | undefined {
    return this.#names.stat(path);
  }

  entries(path: string): DirectoryEntry[] {
    return this.#names.entries(path);
  }
}

/** An image that holds one layer's own files. */
export class BlockImageWriter extends ImageWriter implements BlockCimWriter {
  createMergeLink(path: string, target: string): void {
    this.calls.createMergeLink(this.image, nativePath(path), nativePath(target));
  }

  tombstone(path: string): void {
    this.calls.tombstoneFile(this.image, nativePath(path));
  }
}

function nativePath(path: string): string {
  return path.replaceAll('/', '\\');
}

/** Without the blobs, which nobody asks for again. */
function infoOf({
  securityDescriptor,
  reparseData,
  extendedAttributes,
  ...metadata
}: FileMetadata): FileInfo {
  return {
    ...metadata,
    id: 0,
    isDirectory: (metadata.attributes & FileAttribute.directory) !== 0,
    reparseTag: reparseData === undefined ? 0 : Buffer.from(reparseData).readUInt32LE(0),
  };
}
