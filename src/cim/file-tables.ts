/** The file entries of an image being written: packed tables, the parent's shared until an entry of theirs changes. */

import { CimletError } from '../errors.ts';
import { corruptAt } from './faults.ts';
import { FILE_RECORD_SIZE, type FileSlot } from './file-record.ts';
import { FILES_PER_TABLE, type RegionOffset, TABLE_ENTRY_SIZE, writeTableEntry } from './format.ts';
import type { CimReader } from './reader.ts';
import type { FileId } from './types.ts';

const MAX_FILE_ID = 0xffffffff;

export class FileTables {
  readonly #parent: CimReader | undefined;
  /** By table number; undefined where the parent's is unchanged. */
  readonly #tables: (Buffer | undefined)[];
  #last: FileId;

  constructor(parent: CimReader | undefined) {
    this.#parent = parent;
    const inherited = parent?.tables ?? [];
    const crowded = inherited.findIndex((table) => table.count > FILES_PER_TABLE);
    if (crowded >= 0)
      throw corruptAt(
        parent?.path ?? '',
        0,
        `file table ${crowded} declares more than ${FILES_PER_TABLE} files`,
      );
    this.#tables = inherited.map(() => undefined);
    this.#last = Math.max(0, inherited.length - 1) * FILES_PER_TABLE + (inherited.at(-1)?.count ?? 0);
    if (inherited.some((table) => table.entrySize > FILE_RECORD_SIZE))
      throw new CimletError(
        'unsupported-host',
        `fork CIM ${parent?.path}: its file entries hold more than this writer knows`,
      );
  }

  /** Reserves the next file ID, with an empty entry. */
  add(): FileId {
    if (this.#last >= MAX_FILE_ID) throw new CimletError('corrupt', 'write CIM: too many files');
    this.#last++;
    const { table, position } = this.edit(this.#last);
    table.fill(0, position, position + FILE_RECORD_SIZE);
    return this.#last;
  }

  /** A file's entry, to read. */
  slot(id: FileId): FileSlot {
    const table = this.#tables[tableOf(id)];
    if (table !== undefined) return { table, position: positionOf(id) };
    if (this.#parent === undefined) throw new Error(`file ID ${id} does not exist`);
    return this.#parent.slot(id);
  }

  /** A file's entry, to change. */
  edit(id: FileId): FileSlot {
    const index = tableOf(id);
    const table = this.#tables[index] ?? this.#copyOfParent(index);
    this.#tables[index] = table;
    return { table, position: positionOf(id) };
  }

  /** Stores every changed table and then their directory. */
  write(put: (table: Buffer) => RegionOffset): { tables: RegionOffset; tableCount: number } {
    const directory = Buffer.alloc(this.#tables.length * TABLE_ENTRY_SIZE);
    this.#tables.forEach((table, i) => {
      const inherited = this.#parent?.tables[i];
      const count = Math.min(FILES_PER_TABLE, this.#last - i * FILES_PER_TABLE);
      const entry =
        table === undefined && inherited !== undefined
          ? inherited
          : {
              at: put((table ?? Buffer.alloc(0)).subarray(0, count * FILE_RECORD_SIZE)),
              count,
              entrySize: FILE_RECORD_SIZE,
            };
      writeTableEntry(directory, i * TABLE_ENTRY_SIZE, entry);
    });
    return { tables: put(directory), tableCount: this.#tables.length };
  }

  #copyOfParent(index: number): Buffer {
    const table = Buffer.alloc(FILES_PER_TABLE * FILE_RECORD_SIZE);
    if ((this.#parent?.tables[index]?.count ?? 0) > 0)
      this.#parent?.slot(index * FILES_PER_TABLE + 1).table.copy(table);
    return table;
  }
}

function tableOf(id: FileId): number {
  return Math.floor((id - 1) / FILES_PER_TABLE);
}

function positionOf(id: FileId): number {
  return ((id - 1) % FILES_PER_TABLE) * FILE_RECORD_SIZE;
}
