import { describe, expect, it } from 'vitest';
import { CimletError } from '../../src/errors.ts';
import { createHive, createValue } from '../../src/hive/model.ts';
import { readHive } from '../../src/hive/reader.ts';
import { writeHive } from '../../src/hive/writer.ts';
import { key, pattern, text } from './fixture.ts';

const BINS = 4096;

const SMALL = createHive(
  key('ROOT', {
    subkeys: [
      key('First', {
        className: 'class',
        values: [text('long', 'text'), createValue('short', 4, Buffer.from([1, 2, 3, 4]))],
      }),
      key('Second', { values: [createValue('big', 3, pattern(40_000))] }),
      key('Third', { subkeys: [key('inner')] }),
    ],
  }),
  { fileName: 'SMALL' },
);

/** A hive to damage: positions of its structures, and a reader that gives the base block its checksum first. */
class Patient {
  readonly bytes = writeHive(SMALL);

  read(): unknown {
    return readHive(this.#withChecksum(), 'patient');
  }

  /** Where the record with that signature and name starts. */
  find(signature: string, name: string): number {
    const nameAt = { nk: 76, vk: 20, sk: 0, db: 0, lh: 0 }[signature] ?? 0;
    for (let at = BINS; at < this.bytes.length; at += 4) {
      if (this.bytes.toString('latin1', at, at + 2) !== signature) continue;
      if (nameAt === 0 || this.bytes.toString('latin1', at + nameAt, at + nameAt + name.length) === name)
        return at;
    }
    throw new Error(`no ${signature} ${name}`);
  }

  /** The contents of the cell whose offset stands at a position. */
  follow(position: number): number {
    return BINS + 4 + this.bytes.readUInt32LE(position);
  }

  #withChecksum(): Buffer {
    let sum = 0;
    for (let at = 0; at < 508; at += 4) sum ^= this.bytes.readInt32LE(at);
    this.bytes.writeUInt32LE(sum >>> 0, 508);
    return this.bytes;
  }
}

type Damage = [what: string, damage: (patient: Patient) => void, message: RegExp];

const u16 = (at: (patient: Patient) => number, value: number) => (patient: Patient) => {
  patient.bytes.writeUInt16LE(value, at(patient));
};
const u32 = (at: (patient: Patient) => number, value: number) => (patient: Patient) => {
  patient.bytes.writeUInt32LE(value, at(patient));
};
const field = (signature: string, name: string, offset: number) => (patient: Patient) =>
  patient.find(signature, name) + offset;

const DAMAGES: Damage[] = [
  ['another file', u32(() => 0, 0), /0x0: not a registry hive/],
  ['version 1.1', u32(() => 24, 1), /format version 1\.1 cannot be read/],
  ['version 2.5', u32(() => 20, 2), /format version 2\.5 cannot be read/],
  ['a transaction log', u32(() => 28, 6), /0x1c: not a hive but a transaction log/],
  ['half a page of bins', u32(() => 40, 4097), /0x28: hive bins cannot have 4097 bytes/],
  ['fewer bins than said', u32(() => 40, 1 << 20), /the file ends within its 1048576 bytes/],
  ['no bins', u32(() => 40, 0), /0x24: the key at cell 0x20 is not where a cell starts/],
  ['no bin', u32(() => BINS, 0), /0x1000: no hive bin here/],
  ['a bin elsewhere', u32(() => BINS + 4, 4096), /0x1004: the hive bin says it is at 0x1000/],
  ['a bin without end', u32(() => BINS + 8, 0), /0x1008: a hive bin cannot have 0 bytes/],
  ['a bin beyond the end', u32(() => BINS + 8, 0x7ffff000), /a hive bin cannot have 2147479552 bytes/],
  ['a cell without end', u32(() => BINS + 32, 0), /0x1020: a cell cannot have 0 bytes/],
  ['a cell off its alignment', u32(() => BINS + 32, 12), /0x1020: a cell cannot have 12 bytes/],
  ['a cell beyond its bin', u32(() => BINS + 32, 4096), /0x1020: a cell cannot have 4096 bytes/],
  [
    'the smallest number as a cell size',
    u32(() => BINS + 32, 0x80000000),
    /a cell cannot have 2147483648 bytes/,
  ],
  ['a free root', u32(() => BINS + 32, 88), /the key at cell 0x20 is free/],
  ['a root nowhere', u32(() => 36, 0xffffffff), /0x24: the key at cell 0xffffffff is not where/],
  ['a root off its alignment', u32(() => 36, 0x21), /0x24: the key at cell 0x21 is not where/],
  ['a value for a root', (p) => p.bytes.writeUInt32LE(p.find('vk', 'long') - BINS - 4, 36), /needs 76 bytes/],
  ['no key', u16(field('nk', 'First', 0), 0), /no key \("nk"\) here/],
  ['a foreign parent', u32(field('nk', 'inner', 16), 0x20), /the key names another parent/],
  ['a name beyond its cell', u16(field('nk', 'First', 72), 500), /the key with its name needs 576 bytes/],
  ['a name of no length', u16(field('nk', 'First', 72), 0), /no key can have the name ""/],
  ['a name with a backslash', (p) => p.bytes.write('\\', p.find('nk', 'First') + 76), /the name "\\\\irst"/],
  ['half a character', u16(field('nk', 'First', 2), 0), /the name of the key has half a character/],
  ['half a character of a class', u16(field('nk', 'First', 74), 9), /the class name has half a character/],
  ['a class beyond its cell', u16(field('nk', 'First', 74), 100), /the class name needs 100 bytes/],
  ['a class nowhere', u32(field('nk', 'First', 48), 0xffffffff), /the class name at cell 0xffffffff/],
  ['too few subkeys', u32(field('nk', 'ROOT', 20), 2), /the key says 2 subkeys, its list has 3/],
  ['too many subkeys', u32(field('nk', 'ROOT', 20), 0xffffffff), /says 4294967295 subkeys, its list has 3/],
  ['a list of another kind', u16(field('lh', '', 0), 0), /no list of subkeys here/],
  [
    'a list beyond its cell',
    u16(field('lh', '', 2), 0xffff),
    /the list of subkeys needs 262144|524284 bytes/,
  ],
  [
    'more values than cells',
    u32(field('nk', 'First', 36), 0x40000000),
    /the list of values needs 4294967296 bytes/,
  ],
  ['no value', u16(field('vk', 'long', 0), 0), /no value \("vk"\) here/],
  [
    'a value name beyond its cell',
    u16(field('vk', 'long', 2), 200),
    /the value with its name needs 220 bytes/,
  ],
  [
    '5 bytes within a value',
    u32(field('vk', 'short', 4), 0x80000005),
    /5 bytes of data cannot lie in the value/,
  ],
  ['data beyond its cell', u32(field('vk', 'long', 4), 13), /the data needs 13 bytes, but its cell has 12/],
  ['huge data', u32(field('vk', 'long', 4), 0x7fffffff), /no list of data segments \("db"\) here/],
  ['data nowhere', u32(field('vk', 'long', 8), 0x7ffffff8), /the data at cell 0x7ffffff8 is not where/],
  ['too few segments', u16(field('db', '', 2), 2), /40000 bytes of data cannot have 2 segments/],
  ['no security record', u16(field('sk', '', 0), 0), /no security descriptor \("sk"\) here/],
  ['security beyond its cell', u32(field('sk', '', 16), 0xffffffff), /the security descriptor needs/],
  [
    'a key as its own child',
    (p) => p.bytes.writeUInt32LE(0x20, p.follow(p.find('nk', 'Third') + 28) + 4),
    /the key at cell 0x20 belongs to something else too/,
  ],
  [
    'a value twice',
    (p) => {
      const list = p.follow(p.find('nk', 'First') + 40);
      p.bytes.writeUInt32LE(p.bytes.readUInt32LE(list), list + 4);
    },
    /the value at cell 0x[0-9a-f]+ belongs to something else too/,
  ],
  ['two subkeys of one name', (p) => p.bytes.write('FIRSt', p.find('nk', 'Third') + 76), /two subkeys "F/],
  [
    'two values of one name',
    (p) => {
      p.bytes.write('LONG', p.find('vk', 'short') + 20);
      p.bytes.writeUInt16LE(4, p.find('vk', 'LONG') + 2);
    },
    /the key has two values "LONG"/,
  ],
  [
    'a list in two levels',
    (p) => {
      const list = p.follow(p.find('nk', 'ROOT') + 28);
      p.bytes.write('ri', list);
      p.bytes.writeUInt32LE(list - BINS - 4, list + 4);
    },
    /the part of a list of subkeys at cell 0x[0-9a-f]+ belongs to something else too/,
  ],
  [
    'a segment twice',
    (p) => {
      const list = p.follow(p.find('db', '') + 4);
      p.bytes.writeUInt32LE(p.bytes.readUInt32LE(list), list + 4);
    },
    /the data segment at cell 0x[0-9a-f]+ belongs to something else too/,
  ],
];

describe('readHive', () => {
  it('says what the base block knows', () => {
    const bytes = writeHive({
      ...SMALL,
      fileName: 'a path that is much too long for \\SystemRoot\\Config\\SYSTEM',
    });
    expect(readHive(bytes, 'x')).toMatchObject({ timestamp: SMALL.timestamp, dirty: false });
    expect(readHive(bytes, 'x').fileName).toBe('g for \\SystemRoot\\Config\\SYSTEM');
  });

  it('reads a hive in the middle of a write, and says so', () => {
    const patient = new Patient();
    patient.bytes.writeUInt32LE(7, 4);
    expect(patient.read()).toEqual({ ...SMALL, dirty: true });
  });

  it('ignores what follows the bins', () => {
    expect(readHive(Buffer.concat([writeHive(SMALL), Buffer.from('rest')]), 'x')).toEqual(SMALL);
  });

  it('reads lists without hashes, of other writers', () => {
    const patient = new Patient();
    const lists = ['ROOT', 'Third'].map((name) => patient.follow(patient.find('nk', name) + 28));
    patient.bytes.write('lf', lists[0]!);
    patient.bytes.write('li', lists[1]!);
    expect(patient.read()).toEqual(SMALL);
  });

  it('sorts subkeys that another writer ordered otherwise', () => {
    const patient = new Patient();
    const list = patient.follow(patient.find('nk', 'ROOT') + 28) + 4;
    const first = patient.bytes.readUInt32LE(list);
    patient.bytes.writeUInt32LE(patient.bytes.readUInt32LE(list + 16), list);
    patient.bytes.writeUInt32LE(first, list + 16);
    expect(patient.read()).toEqual(SMALL);
  });

  it.each(DAMAGES)('refuses %s', (_, damage, message) => {
    const patient = new Patient();
    damage(patient);
    expect(() => patient.read()).toThrow(message);
    try {
      patient.read();
    } catch (error) {
      expect(error).toBeInstanceOf(CimletError);
      expect(error).toMatchObject({
        code: 'corrupt',
        message: expect.stringMatching(/^read hive patient: /),
      });
    }
  });

  it('refuses a wrong checksum and a file that ends early', () => {
    const bytes = writeHive(SMALL);
    bytes.writeUInt8(bytes.readUInt8(508) ^ 1, 508);
    expect(() => readHive(bytes, 'x')).toThrow(
      'read hive x: offset 0x1fc: the checksum of the base block is wrong',
    );
    expect(() => readHive(writeHive(SMALL).subarray(0, 4095), 'x')).toThrow('ends within its base block');
    expect(() => readHive(Buffer.alloc(0), 'x')).toThrow('not a registry hive');
  });
});
