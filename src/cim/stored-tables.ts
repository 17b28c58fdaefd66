/** The file tables of an open image, read when they are needed and kept in a bounded cache. */

import { ByteCache } from './byte-cache.ts';
import { type CimFault, corruptAt } from './faults.ts';
import { FILE_RECORD_SIZE, type FileSlot } from './file-record.ts';
import { FILES_PER_TABLE, type TableEntry } from './format.ts';
import type { RegionFiles } from './region-files.ts';
import type { FileId } from './types.ts';

export class StoredTables {
  /** One per table. */
  readonly entries: readonly TableEntry[];
  readonly #image: string;
  readonly #files: RegionFiles;
  readonly #cache: ByteCache<number, Buffer>;

  /** `image` is the `.cim` file's path, for errors. */
  constructor(image: string, files: RegionFiles, entries: readonly TableEntry[], cacheBytes: number) {
    this.#cache = new ByteCache(cacheBytes, (table) => table.length);
    this.#image = image;
    this.#files = files;
    this.entries = entries;
  }

  /** A file's entry; the table is shared and not to be changed. */
  slot(id: FileId): FileSlot {
    const index = Math.floor((id - 1) / FILES_PER_TABLE);
    const slot = (id - 1) % FILES_PER_TABLE;
    const entry = this.entries[index];
    if (entry === undefined || slot >= entry.count)
      throw corruptAt(this.#image, 0, `file ID ${id} is in no file table`);
    const table = this.#cache.get(index, () => this.#read(index, entry));
    return { table, position: slot * FILE_RECORD_SIZE };
  }

  /** A fault of a file's entry: names the region file and the offset where the entry is. */
  faultAt(id: FileId, message: string): CimFault {
    const entry = this.entries[Math.floor((id - 1) / FILES_PER_TABLE)];
    if (entry?.at === undefined) return { file: this.#image, offset: 0, message };
    const offset = entry.at.offset + ((id - 1) % FILES_PER_TABLE) * entry.entrySize;
    return this.#files.faultAt({ region: entry.at.region, offset }, message);
  }

  #read(index: number, { at, count, entrySize }: TableEntry): Buffer {
    const what = `file table ${index}`;
    if (at === undefined) throw corruptAt(this.#image, 0, `${what} is missing`);
    this.#files.locate(at, 0, what);
    if (count > FILES_PER_TABLE) throw this.#files.corruptAt(at, `${what} declares ${count} files`);
    if (entrySize === 0) throw this.#files.corruptAt(at, `${what} declares entries of no bytes`);
    const bytes = this.#files.read(at, count * entrySize, what);
    if (entrySize === FILE_RECORD_SIZE) return bytes;
    // Entries of other writers may be shorter (the rest is zero) or longer (the rest is unknown).
    const table = Buffer.alloc(count * FILE_RECORD_SIZE);
    const used = Math.min(entrySize, FILE_RECORD_SIZE);
    for (let i = 0; i < count; i++)
      bytes.copy(table, i * FILE_RECORD_SIZE, i * entrySize, i * entrySize + used);
    return table;
  }
}
