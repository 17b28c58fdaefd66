import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Disk } from '../../src/ext4/disk.ts';
import { emptyExt4, writeEmptyExt4 } from '../../src/ext4/empty.ts';
import { checksumOf, type Piece, writeVhdx } from '../../src/vhd/vhdx.ts';
import { VhdxFile } from '../../src/vhd/vhdx-file.ts';
import { hasTool, requireOrSkip } from '../support/requirements.ts';

const hasQemu = requireOrSkip('qemu-img', hasTool('qemu-img'));
const MIB = 2 ** 20;
const ID = Buffer.from('00112233445566778899aabbccddeeff', 'hex');

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cimlet-vhdx-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

const at = (name: string) => join(directory, name);
const qemu = (...args: string[]) => execFileSync('qemu-img', args, { encoding: 'utf8', stdio: 'pipe' });

function make(size: number, pieces: Piece[], name = 'disk.vhdx'): string {
  writeVhdx(at(name), size, ID, pieces);
  return at(name);
}

/** What the disk must be. */
function raw(size: number, pieces: Piece[]): Buffer {
  const bytes = Buffer.alloc(size);
  for (const piece of pieces) bytes.set(piece.content, piece.at);
  return bytes;
}

const SIZE = 5 * MIB + 1536;
const disks = fc.array(
  fc
    .record({ at: fc.nat(SIZE - 1), content: fc.uint8Array({ minLength: 1, maxLength: 5000 }) })
    .map((piece) => ({ ...piece, content: piece.content.subarray(0, SIZE - piece.at) })),
  { maxLength: 6 },
);

describe('a written VHDX', () => {
  it.runIf(hasQemu)('is, for qemu, a sound disk of that size and content', () => {
    fc.assert(
      fc.property(disks, (pieces) => {
        const file = make(SIZE, pieces);
        try {
          expect(JSON.parse(qemu('info', '--output=json', file))).toMatchObject({
            format: 'vhdx',
            'virtual-size': SIZE,
          });
          expect(qemu('check', '-f', 'vhdx', file)).toContain('No errors');
          qemu('convert', '-f', 'vhdx', '-O', 'raw', file, at('raw'));
          expect(readFileSync(at('raw')).equals(raw(SIZE, pieces))).toBe(true);
        } finally {
          rmSync(file);
        }
      }),
      { numRuns: 5 },
    );
  });

  it.runIf(hasQemu)('has room for what is written to it, wherever', () => {
    // More blocks than one run of the table has.
    const size = 5000 * MIB;
    const file = make(size, [{ at: 4097 * MIB, content: Buffer.from('ours') }]);
    const places = [0, 4095 * MIB + 512, size - 512];
    writeFileSync(at('sector'), Buffer.alloc(512, 'qemu'));
    for (const place of places)
      execFileSync('qemu-io', ['-f', 'vhdx', '-c', `write -s ${at('sector')} ${place} 512`, file]);
    expect(qemu('check', '-f', 'vhdx', file)).toContain('No errors');
    const disk = new VhdxFile(file);
    try {
      for (const place of places) expect(disk.read(place, 5).toString()).toBe('qemuq');
      expect(disk.read(4097 * MIB, 5).toString()).toBe('ours\0');
    } finally {
      disk.close();
    }
  });

  it('is the same each time, and takes what it holds only', () => {
    const pieces = [{ at: 3, content: Buffer.from('x') }];
    const [one, other] = [make(2 ** 40, pieces, 'one'), make(2 ** 40, pieces, 'other')];
    execFileSync('cmp', [one, other]);
    expect(statSync(one).size).toBeLessThan(16 * MIB);
  });

  it('replaces nothing, and has bounds', () => {
    make(512, []);
    expect(() => make(512, [])).toThrow(expect.objectContaining({ code: 'already-exists' }));
    for (const size of [0, 100, 65 * 2 ** 40])
      expect(() => make(size, [], 'x')).toThrow(expect.objectContaining({ code: 'invalid-manifest' }));
  });
});

describe('the empty file system of a scratch in a VHDX', () => {
  it.runIf(hasQemu && requireOrSkip('e2fsck', hasTool('e2fsck')))(
    'is the one that is written to a plain file, and is clean for e2fsck',
    () => {
      const { size, pieces } = emptyExt4(300 * MIB, ID, 'make');
      writeVhdx(at('scratch.vhdx'), size, ID, pieces);
      writeEmptyExt4(at('plain'), 300 * MIB, ID);
      qemu('convert', '-f', 'vhdx', '-O', 'raw', at('scratch.vhdx'), at('raw'));
      execFileSync('cmp', [at('raw'), at('plain')]);
      execFileSync('e2fsck', ['-fn', at('raw')], { stdio: 'pipe' });
    },
  );

  it('is read as any other disk', () => {
    const { size, pieces } = emptyExt4(20 * 2 ** 30, ID, 'make');
    writeVhdx(at('scratch.vhdx'), size, ID, pieces);
    expect(statSync(at('scratch.vhdx')).size).toBeLessThan(12 * MIB);
    const disk = new Disk(at('scratch.vhdx'));
    try {
      expect([...disk.files.entries(disk.files.inode(2))].map(({ name }) => name)).toEqual(['lost+found']);
    } finally {
      disk.close();
    }
  });
});

describe("somebody else's VHDX", () => {
  it.runIf(hasQemu).each(['1M', '8M', '32M'])('is read: qemu, with blocks of %s', (blocks) => {
    const content = Buffer.concat([
      Buffer.alloc(9 * MIB + 7, 'a'),
      Buffer.alloc(40 * MIB),
      Buffer.from('end'),
    ]);
    writeFileSync(at('raw'), content);
    truncateSync(at('raw'), 64 * MIB);
    qemu(
      'convert',
      '-f',
      'raw',
      '-O',
      'vhdx',
      '-o',
      `subformat=dynamic,block_size=${blocks}`,
      at('raw'),
      at('q'),
    );
    const disk = new VhdxFile(at('q'));
    try {
      expect(disk.size).toBe(64 * MIB);
      expect(disk.read(0, disk.size).equals(readFileSync(at('raw')))).toBe(true);
      expect(() => disk.read(disk.size - 1, 2)).toThrow(expect.objectContaining({ code: 'corrupt' }));
    } finally {
      disk.close();
    }
  });

  it('that is damaged is refused or read, never more', () => {
    const whole = readFileSync(make(3 * MIB, [{ at: 0, content: Buffer.alloc(10, 1) }]));
    const places = [64, 128, 192, 256].flatMap((kib) => [kib * 1024, kib * 1024 + 120]);
    fc.assert(
      fc.property(
        fc.oneof(
          fc.nat(200),
          fc.constantFrom(...places),
          fc.nat(320 * 1024),
          fc.nat(MIB).map((n) => 2 * MIB + n),
        ),
        fc.uint8Array({ minLength: 1, maxLength: 40 }),
        fc.option(fc.nat(whole.length)),
        (position, damage, end) => {
          const bytes = Buffer.from(whole);
          bytes.set(damage, position);
          writeFileSync(at('damaged'), bytes.subarray(0, end ?? bytes.length));
          try {
            const disk = new VhdxFile(at('damaged'));
            try {
              disk.read(0, Math.min(disk.size, 3 * MIB));
            } finally {
              disk.close();
            }
          } catch (error) {
            expect(['corrupt', 'failed-precondition', 'unsupported-host']).toContain(
              (error as { code: string }).code,
            );
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  /** Changes both region tables of a file. */
  function changeRegions(bytes: Buffer, change: (table: Buffer) => void): void {
    for (const kib of [192, 256]) {
      const table = bytes.subarray(kib * 1024, (kib + 64) * 1024);
      change(table);
      table.writeUInt32LE(checksumOf(table), 4);
    }
  }

  it.each([
    ['a region', true],
    ['a metadata item', false],
  ])('with %s of a later format is refused where that is required, and only there', (_, isRegion) => {
    const bytes = readFileSync(make(MIB, []));
    const metadata = bytes.subarray(2 * MIB);
    for (const required of [0, 1]) {
      const add = (table: Buffer, count: number, from: number, flagsAt: number, flag: number) => {
        table.copy(table, from + count * 32, from, from + 32); // where an entry before it says that it is
        table.fill(7, from + count * 32, from + count * 32 + 16); // the GUID
        table.writeUInt32LE(required * flag, from + count * 32 + flagsAt);
      };
      if (isRegion)
        changeRegions(bytes, (table) => {
          add(table, 2, 16, 28, 1);
          table.writeUInt32LE(3, 8);
        });
      else {
        add(metadata, 5, 32, 24, 4);
        metadata.writeUInt16LE(6, 10);
      }
      writeFileSync(at('later'), bytes);
      const open = () => new VhdxFile(at('later')).close();
      if (required === 0) open();
      else expect(open).toThrow(expect.objectContaining({ code: 'unsupported-host' }));
    }
  });

  it('whose regions overlap is refused', () => {
    const bytes = readFileSync(make(MIB, []));
    // The first begins where the second does.
    changeRegions(bytes, (table) => table.copy(table, 16 + 16, 16 + 32 + 16, 16 + 32 + 24));
    writeFileSync(at('overlap'), bytes);
    expect(() => new VhdxFile(at('overlap'))).toThrow(/regions overlap/);
  });

  it.each([
    ['both headers', [64, 128]],
    ['the header that counts', [128]],
  ])('that was not detached cleanly is not read: a log in %s', (_, headers) => {
    const bytes = readFileSync(make(MIB, []));
    for (const kib of headers) {
      const header = bytes.subarray(kib * 1024, (kib + 4) * 1024);
      header.fill(7, 48, 64); // the log's GUID
      header.writeUInt32LE(checksumOf(header), 4);
    }
    writeFileSync(at('open'), bytes);
    expect(() => new VhdxFile(at('open'))).toThrow(expect.objectContaining({ code: 'failed-precondition' }));
  });

  it('whose earlier header has a log, or whose later one is damaged, is read: the other one counts', () => {
    const bytes = readFileSync(make(MIB, []));
    const [earlier, later] = [64, 128].map((kib) => bytes.subarray(kib * 1024, (kib + 4) * 1024)) as [
      Buffer,
      Buffer,
    ];
    const whole = Buffer.from(earlier);
    earlier.fill(7, 48, 64);
    earlier.writeUInt32LE(checksumOf(earlier), 4);
    writeFileSync(at('closed'), bytes);
    new VhdxFile(at('closed')).close();
    whole.copy(earlier);
    later.fill(7, 48, 64);
    writeFileSync(at('closed'), bytes);
    new VhdxFile(at('closed')).close();
    earlier.fill(7, 48, 64);
    writeFileSync(at('closed'), bytes);
    expect(() => new VhdxFile(at('closed'))).toThrow(/neither header is whole/);
  });
});
