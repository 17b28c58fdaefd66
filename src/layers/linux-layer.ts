/**
 * A Linux layer's tar into an ext4 image, as overlayfs wants a layer: whiteouts are character devices 0:0, opaque directories have an extended
 * attribute. Sources: OCI image-spec layer.md ("Whiteouts"), kernel documentation "Overlay Filesystem".
 */

import { CimletError } from '../errors.ts';
import { refuse } from '../ext4/faults.ts';
import type { Ext4Attributes } from '../ext4/inode-builder.ts';
import type { Ext4Writer } from '../ext4/writer.ts';
import { type Xattr, xattrFault } from '../ext4/xattrs.ts';
import { entryError, forEntry, quoteName, type TarHeader } from '../tar/tar-format.ts';
import { TarReader } from '../tar/tar-reader.ts';
import { SparseExpander, type SparseFile, sparseFileOf } from '../tar/tar-sparse.ts';
import { OVERLAY_PREFIX, xattrsOf } from './linux-xattrs.ts';

export interface LinuxImportOptions {
  /** Looked at with every chunk; an abort becomes CimletError `cancelled`. */
  signal?: AbortSignal | undefined;
}

export interface LinuxImportResult {
  /** Entries of the tar. */
  entries: number;
  /** Bytes of file data, holes included. */
  bytes: number;
  /** Sentences without a full stop, for an operator. */
  warnings: string[];
}

const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';
/** What aufs kept for itself. */
const AUFS = '.wh..wh.';

/**
 * Writes an uncompressed layer tar into `writer`, which is neither finished nor closed. The stream is read to its end.
 *
 * A path that comes twice is what it was last; a directory then keeps what is in it. A whiteout hides what layers below have, never what this
 * one has. Entries below a symlink go where it leads, inside the image. Throws CimletError `corrupt`, naming the entry and its offset, for what
 * breaks the rules of tars or what ext4 can't hold, and `no-space` when the image gets too large.
 */
export async function importLinuxLayer(
  tar: AsyncIterable<Uint8Array>,
  writer: Ext4Writer,
  { signal }: LinuxImportOptions = {},
): Promise<LinuxImportResult> {
  const processor = new LinuxLayer(writer);
  const reader = new TarReader(processor, { text: 'bytes', sparse: true });
  for await (const chunk of tar) {
    if (signal?.aborted)
      throw new CimletError('cancelled', 'import layer: cancelled', { cause: signal.reason });
    reader.write(chunk);
  }
  reader.finish();
  return processor.result();
}

class LinuxLayer {
  readonly #writer: Ext4Writer;
  #entries = 0;
  #bytes = 0;
  #hiddenXattrs = 0;
  #overlayXattrs = 0;
  #current: TarHeader | undefined;
  #sparse: SparseExpander | undefined;
  /** A whiteout that is a file with data: they mean nothing. */
  #ignoresData = false;

  constructor(writer: Ext4Writer) {
    this.#writer = writer;
  }

  entry(header: TarHeader): void {
    this.#entries++;
    this.#current = header;
    this.#sparse = undefined;
    this.#ignoresData = false;
    this.#attempt(() => this.#write(header));
  }

  data(chunk: Uint8Array): void {
    if (this.#ignoresData) return;
    this.#attempt(() => {
      if (this.#sparse !== undefined) this.#sparse.write(chunk);
      else this.#writer.data(chunk);
    });
  }

  end(): void {
    if (this.#ignoresData) return;
    this.#attempt(() => {
      this.#sparse?.end();
      this.#writer.end();
    });
  }

  result(): LinuxImportResult {
    const leftOut: [count: number, which: string][] = [
      [this.#hiddenXattrs, "in namespaces that Linux doesn't have"],
      [this.#overlayXattrs, `that are orders to overlayfs (${OVERLAY_PREFIX}*)`],
    ];
    const warnings = leftOut.flatMap(([count, which]) =>
      count === 0 ? [] : [`${count} extended attributes ${which} were left out`],
    );
    return { entries: this.#entries, bytes: this.#bytes, warnings };
  }

  #write(header: TarHeader): void {
    const sparse = sparseFileOf(header);
    if (typeof sparse === 'string') throw entryError(placeOf(header), sparse);
    const path = pathOf(sparse?.name ?? header.name, header);
    const name = path.slice(path.lastIndexOf('/') + 1);
    if (name.startsWith(WHITEOUT)) {
      this.#ignoresData = true;
      this.#writeWhiteout(path, name);
      return;
    }
    if (path === '' && header.type !== 'directory')
      throw entryError(placeOf(header), 'the root is a directory');
    const attributes = this.#attributesOf(header);
    const writer = this.#writer;
    if (header.type === 'file') this.#beginFile(path, header, sparse, attributes);
    else if (header.type === 'directory') writer.directory(path, attributes);
    else if (header.type === 'symlink') writer.symlink(path, header.linkName, attributes);
    else if (header.type === 'hard-link') writer.link(path, pathOf(header.linkName, header));
    else if (header.type === 'fifo') writer.fifo(path, attributes);
    else {
      const kind = header.type === 'block-device' ? 'block' : 'character';
      writer.device(path, kind, header.device ?? { major: 0, minor: 0 }, attributes);
    }
  }

  #beginFile(
    path: string,
    header: TarHeader,
    sparse: SparseFile | undefined,
    attributes: Ext4Attributes,
  ): void {
    const size = sparse?.size ?? header.size;
    this.#writer.file(path, size, attributes);
    this.#bytes += size;
    if (sparse === undefined) return;
    this.#sparse = new SparseExpander(sparse, this.#writer, (reason) => {
      throw entryError(placeOf(header), reason);
    });
  }

  #writeWhiteout(path: string, name: string): void {
    const directory = path.slice(0, Math.max(0, path.length - name.length - 1));
    if (name === OPAQUE) this.#writer.opaque(directory);
    else if (!name.startsWith(AUFS)) {
      const hidden = name.slice(WHITEOUT.length);
      if (hidden === '') throw refuse('a whiteout of nothing');
      this.#writer.whiteout(directory === '' ? hidden : `${directory}/${hidden}`);
    }
  }

  #attributesOf(header: TarHeader): Ext4Attributes {
    const { mode, uid, gid, mtime, atime = mtime, ctime = mtime } = header;
    return { mode, uid, gid, mtime, atime, ctime, xattrs: this.#xattrsOf(header) };
  }

  /** What a mount would show; not what overlayfs would obey, as no other unpacking of the layer does. */
  #xattrsOf({ records }: TarHeader): Xattr[] {
    return xattrsOf(records).filter((xattr) => {
      if (xattr.name.startsWith(OVERLAY_PREFIX)) this.#overlayXattrs++;
      else if (xattrFault(xattr) === 'namespace') this.#hiddenXattrs++;
      else return true;
      return false;
    });
  }

  #attempt(action: () => void): void {
    try {
      action();
    } catch (error) {
      const header = this.#current;
      if (header === undefined) throw error;
      forEntry(placeOf(header), () => {
        throw error;
      });
    }
  }
}

/** As messages name the entry. */
function placeOf({ name, offset }: TarHeader): { name: string; offset: number } {
  return { name: textOf(name), offset };
}

/** A byte string as text. */
function textOf(name: string): string {
  return Buffer.from(name, 'latin1').toString();
}

/** `a/b/c`: below the image's root, whether the tar begins it with a slash or not. */
function pathOf(name: string, header: TarHeader): string {
  if (!/^\/|(?:^|\/)\.{0,2}(?:\/|$)/.test(name)) return name;
  const names = name.split('/').filter((each) => each !== '' && each !== '.');
  if (names.includes('..'))
    throw entryError(placeOf(header), `the path ${quoteName(textOf(name))} has a '..' component`);
  return names.join('/');
}
