/** A Windows layer tar as large and as varied as a base image's, made of slices of Node's own binary. */

import { closeSync, openSync, readFileSync, statfsSync, statSync } from 'node:fs';
import { writeFully } from '../src/cim/durable-files.ts';
import { FileAttribute } from '../src/cim/types.ts';
import { LayerTarWriter } from '../src/layers/layer-tar.ts';
import { encodeSddl } from '../src/layers/sddl.ts';

const FILES = 100_000;
const PER_DIRECTORY = 200;
const DESCRIPTORS = 40;
const BUFFER_SIZE = 1024 * 1024;
/** 2020-01-01 as a FILETIME, in units of 100 ns. */
const START_TIME = 132_223_104_000_000_000n;

export interface WindowsLayer {
  files: number;
  /** Of the tar. */
  bytes: number;
}

/**
 * Writes a plain layer tar of 100,000 files and 2 GB: of a hundred files fifty are below a page, forty around 22 KB, ten up to 200 KB, as in
 * Windows' own tree; 40 security descriptors, one file in fifty with an alternate stream. Always the same bytes. Whoever
 * calls it names in `room` how many times as much must be free on the disk.
 */
export function writeWindowsLayer(file: string, directory: string, room: number): WindowsLayer {
  const { bavail, bsize } = statfsSync(directory);
  const needed = 2.2e9 * room;
  if (bavail * bsize < needed)
    throw new Error(`${directory} has ${bavail * bsize} bytes free, the case needs ${needed}`);
  const binary = readFileSync(process.execPath);
  const descriptors = Array.from({ length: DESCRIPTORS }, (_, number) => makeDescriptor(number));
  const descriptor = openSync(file, 'w');
  try {
    const output = new BufferedFile(descriptor);
    const tar = new LayerTarWriter((bytes) => output.write(bytes));
    const metadata = (index: number, attributes: number) => {
      const time = START_TIME + BigInt(index) * 12_345_678n;
      return {
        attributes,
        creationTime: time,
        lastWriteTime: time + 1_234_567n,
        changeTime: time + 2_345_678n,
        lastAccessTime: time + 3_456_789n,
        securityDescriptor: descriptors[index % DESCRIPTORS] ?? Buffer.alloc(0),
      };
    };
    for (const path of ['Files', 'Files/Windows', 'Files/Windows/WinSxS'])
      tar.directory(path, metadata(0, FileAttribute.directory));
    let folder = '';
    for (let index = 0; index < FILES; index++) {
      if (index % PER_DIRECTORY === 0) {
        folder = `Files/Windows/WinSxS/amd64_component-${index / PER_DIRECTORY}_31bf3856ad364e35_10.0.20348.1`;
        tar.directory(folder, metadata(index, FileAttribute.directory));
      }
      const path = `${folder}/Component file ${index}.dll`;
      tar.file(path, cut(binary, index, sizeOf(index)), metadata(index, FileAttribute.archive));
      if (index % 50 === 0) tar.stream(path, 'Zone.Identifier', `[ZoneTransfer]\r\nZoneId=${index % 5}\r\n`);
    }
    tar.finish();
    output.flush();
  } finally {
    closeSync(descriptor);
  }
  return { files: FILES, bytes: statSync(file).size };
}

/** Valid self-relative descriptors that differ in one user each. */
function makeDescriptor(number: number): Buffer {
  const encoded = encodeSddl(
    `O:SYG:SYD:PAI(A;;FA;;;SY)(A;;FA;;;BA)(A;;0x1200a9;;;BU)(A;;0x1200a9;;;S-1-5-21-1-2-3-${1000 + number})`,
  );
  if ('fault' in encoded) throw new Error(encoded.fault);
  return encoded;
}

/** Of a hundred files fifty are below a page, forty around 22 KB, ten up to 200 KB, as in Windows' own tree. */
export function sizeOf(index: number): number {
  const kind = index % 100;
  const spread = (index * 7919) % 10_007;
  if (kind < 50) return 400 + Math.floor(spread * 0.33);
  if (kind < 90) return 4_200 + Math.floor(spread * 3.5);
  return 30_000 + spread * 17;
}

/** A slice of real bytes that no other file has. */
export function cut(binary: Buffer, index: number, length: number): Buffer {
  const start = (index * 104_729) % (binary.length - length);
  const slice = Buffer.from(binary.subarray(start, start + length));
  slice.writeUInt32LE(index, 0);
  return slice;
}

class BufferedFile {
  readonly #descriptor: number;
  #pieces: Uint8Array[] = [];
  #size = 0;
  #position = 0;

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  write(bytes: Uint8Array): void {
    this.#pieces.push(bytes);
    this.#size += bytes.length;
    if (this.#size >= BUFFER_SIZE) this.flush();
  }

  flush(): void {
    writeFully(this.#descriptor, Buffer.concat(this.#pieces), this.#position);
    this.#position += this.#size;
    this.#pieces = [];
    this.#size = 0;
  }
}
