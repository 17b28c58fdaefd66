/** Builds an image byte by byte, for what our writer never makes. Every number is written out, as in the layout. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const HAND_MADE_GUID = 'aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee';

function header(type: number, size: number, major = 1): Buffer {
  const bytes = Buffer.alloc(size);
  bytes.write('cimfile0', 'latin1');
  bytes.writeUInt32LE(size, 8);
  bytes[12] = type;
  bytes.writeUInt32LE(major, 16);
  return bytes;
}

export class HandMadeImage {
  region = header(1, 40);
  readonly entrySize: number;
  readonly entries: Buffer[] = [];

  constructor(entrySize: number) {
    this.entrySize = entrySize;
  }

  /** Appends an object on 8 bytes and returns its offset. */
  add(data: Uint8Array): number {
    const padding = Buffer.alloc((8 - (this.region.length % 8)) % 8);
    this.region = Buffer.concat([this.region, padding, data]);
    return this.region.length - data.length;
  }

  /** Appends a file entry whose default stream is given; returns its ID. */
  addFile(
    offset: number,
    size: number,
    type: number,
    fill: (entry: Buffer) => void = () => undefined,
  ): number {
    const entry = Buffer.alloc(Math.max(88, this.entrySize));
    entry.writeBigUInt64LE(5n, 8);
    entry.writeBigUInt64LE(BigInt(offset), 40);
    entry.writeBigUInt64LE(BigInt(size) | (BigInt(type) << 48n), 48);
    fill(entry);
    this.entries.push(entry.subarray(0, this.entrySize));
    return this.entries.length;
  }

  addDirectory(links: [name: string, id: number][]): number {
    const table = linkTable(links);
    return this.addFile(this.add(table), table.length, 1);
  }

  write(directory: string, root: number, major = 1): string {
    const table = this.add(Buffer.concat(this.entries));
    const tables = Buffer.alloc(16);
    tables.writeBigUInt64LE(BigInt(table), 0);
    tables.writeUInt16LE(this.entries.length, 8);
    tables.writeUInt16LE(this.entrySize, 10);
    const upcase = Buffer.alloc(131_072);
    for (let unit = 0; unit < 65_536; unit++)
      upcase.writeUInt16LE(unit >= 97 && unit <= 122 ? unit - 32 : unit, unit * 2);
    const filesystem = Buffer.alloc(24);
    filesystem.writeBigUInt64LE(BigInt(this.add(upcase)), 0);
    filesystem.writeBigUInt64LE(BigInt(this.add(tables)), 8);
    filesystem.writeUInt32LE(1, 16);
    filesystem.writeUInt32LE(root, 20);
    const image = header(0, 72, major);
    Buffer.from('aaaaaaaabbbbcc4c8dddeeeeeeeeeeee', 'hex').copy(image, 32);
    image.writeUInt16LE(1, 48);
    image.writeBigUInt64LE(BigInt(this.add(filesystem)), 56);
    writeFileSync(join(directory, `region_${HAND_MADE_GUID}_0`), this.region);
    const path = join(directory, 'hand.cim');
    writeFileSync(path, image);
    return path;
  }
}

/** A directory's link table, in the order given. */
export function linkTable(links: [name: string, id: number][]): Buffer {
  const start = 8 + links.length * 8;
  const names = links.map(([name]) => {
    const bytes = Buffer.alloc(2 + name.length * 2);
    bytes.writeUInt16LE(name.length, 0);
    bytes.write(name, 2, 'utf16le');
    return bytes;
  });
  const table = Buffer.concat([Buffer.alloc(start), ...names]);
  table.writeUInt32LE(table.length, 0);
  table.writeUInt32LE(links.length, 4);
  let offset = start;
  links.forEach(([, id], i) => {
    table.writeUInt32LE(id, 8 + i * 4);
    table.writeUInt32LE(offset, 8 + links.length * 4 + i * 4);
    offset += names[i]!.length;
  });
  return table;
}
