import {
  linkSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CimletError } from '../../src/errors.ts';
import { TarReader } from '../../src/tar/tar-reader.ts';
import { hasTool, requireOrSkip } from '../support/requirements.ts';
import { makeTar, readTar, run, tarOf } from './tar-helpers.ts';

const NAMES = ['plain.txt', 'ä/日本語-😀.txt', `${'d'.repeat(90)}/${'e'.repeat(90)}/${'f'.repeat(95)}`];

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'cimlet-tar-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** Header of one entry with a field replaced and the checksum made right again. */
function patched(tar: Buffer, at: number, bytes: Buffer | string, block = 0): Buffer {
  const copy = Buffer.from(tar);
  const base = block * 512;
  copy.set(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes, base + at);
  copy.fill(0x20, base + 148, base + 156);
  let sum = 0;
  for (let i = base; i < base + 512; i++) sum += copy[i]!;
  copy.write(`${sum.toString(8).padStart(6, '0')}\0 `, base + 148, 'latin1');
  return copy;
}

function failure(tar: Buffer): CimletError {
  try {
    readTar(tar);
  } catch (error) {
    if (error instanceof CimletError) return error;
    throw error;
  }
  throw new Error('the tar was accepted');
}

describe.runIf(requireOrSkip('tar', hasTool('tar')))('tars made by GNU tar', () => {
  beforeAll(() => {
    const tree = join(directory, 'tree');
    for (const name of NAMES) {
      mkdirSync(join(tree, name, '..'), { recursive: true });
      writeFileSync(join(tree, name), `content of ${name}`);
    }
    writeFileSync(join(tree, 'empty'), '');
    writeFileSync(join(tree, 'page'), Buffer.alloc(4096, 7));
    linkSync(join(tree, 'plain.txt'), join(tree, 'second name'));
    symlinkSync('some/where else', join(tree, 'link'));
    symlinkSync('t'.repeat(300), join(tree, 'long-link'));
    utimesSync(join(tree, 'plain.txt'), 1_600_000_000.25, 1_600_000_000.125);
  });

  it.each(['posix', 'gnu'])('--format=%s', (format) => {
    const tar = run('tar', ['--sort=name', `--format=${format}`, '-cf', '-', '.'], {
      cwd: join(directory, 'tree'),
    });
    for (const chunkSize of [tar.length, 1000, 512, 7]) {
      const entries = new Map(readTar(tar, chunkSize).map((entry) => [entry.name, entry]));
      for (const name of NAMES)
        expect(entries.get(`./${name}`)?.content.toString()).toBe(`content of ${name}`);
      expect(entries.get('./empty')).toMatchObject({ type: 'file', size: 0 });
      expect(entries.get('./page')?.content.equals(Buffer.alloc(4096, 7))).toBe(true);
      expect(entries.get('./second name')).toMatchObject({ type: 'hard-link', linkName: './plain.txt' });
      expect(entries.get('./link')).toMatchObject({ type: 'symlink', linkName: 'some/where else' });
      expect(entries.get('./long-link')?.linkName).toBe('t'.repeat(300));
      expect(entries.get('./ä/')?.type).toBe('directory');
      expect(entries.get('./plain.txt')?.mtime).toBe(
        format === 'posix' ? 1_600_000_000_125_000_000n : 1_600_000_000_000_000_000n,
      );
    }
  });

  it.each(['ustar', 'v7'])('--format=%s, with names as short as it allows', (format) => {
    const long = format === 'ustar' ? [`${'d'.repeat(90)}/${'e'.repeat(60)}`] : [];
    const tree = join(directory, format);
    mkdirSync(join(tree, long[0] ?? 'sub'), { recursive: true });
    writeFileSync(join(tree, long[0] ?? 'sub', 'ö'), 'x');
    const tar = run('tar', ['--sort=name', `--format=${format}`, '-cf', '-', '.'], { cwd: tree });
    const entries = readTar(tar, 100);
    expect(entries.at(-1)).toMatchObject({ name: `./${long[0] ?? 'sub'}/ö`, type: 'file', size: 1 });
    expect(entries[0]).toMatchObject({ name: './', type: 'directory' });
  });

  it.each(['gnu', 'posix'])('refuses sparse files of --format=%s, naming them', (format) => {
    const tree = join(directory, `sparse-${format}`);
    mkdirSync(tree, { recursive: true });
    writeFileSync(join(tree, 'holes'), 'x');
    truncateSync(join(tree, 'holes'), 10 << 20);
    const tar = run('tar', [`--format=${format}`, '--sparse', '-cf', '-', 'holes'], { cwd: tree });
    const error = failure(tar);
    expect(error.code).toBe('corrupt');
    expect(error.message).toMatch(
      /^tar entry "holes" at offset 0: sparse files in (GNU|PAX) format are not supported$/,
    );
  });

  it('global PAX headers apply to what follows, and are overridden by local ones', () => {
    const tar = run(
      'tar',
      [
        '--format=posix',
        '--pax-option=globexthdr.name=g,VENDOR.note=all,mtime=1000',
        '-cf',
        '-',
        'empty',
        'link',
      ],
      { cwd: join(directory, 'tree') },
    );
    const [first] = readTar(tar);
    expect(first?.records.get('VENDOR.note')).toBe('all');
    // tar writes each file's own time into a local header.
    expect(first?.records.get('mtime')).not.toBe('1000');
  });
});

it.runIf(requireOrSkip('python3', hasTool('python3')))('numbers in base 256, negative times too', () => {
  const script = `
import tarfile, sys, io
t = tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=tarfile.GNU_FORMAT)
i = tarfile.TarInfo('old'); i.mtime = -5; i.uid = 5000000; i.size = 3
t.addfile(i, io.BytesIO(b'abc')); t.close()`;
  const [entry] = readTar(run('python3', ['-c', script]));
  expect(entry).toMatchObject({ name: 'old', mtime: -5_000_000_000n, uid: 5_000_000, size: 3 });
});

describe('names', () => {
  it('keeps lone surrogates', () => {
    const name = 'a\ud800b/\udc00\ud83d\ude00';
    expect(readTar(tarOf({ name, type: 'file', content: 'x' }))[0]?.name).toBe(name);
  });

  it('refuses bytes that are no text', () => {
    expect(
      failure(patched(tarOf({ name: 'bad', type: 'file' }), 0, Buffer.from([0xff, 0xfe]))).message,
    ).toContain("name isn't valid UTF-8");
    // A surrogate pair written as two surrogates would be a second spelling of the same name.
    const pair = Buffer.from([0xed, 0xa0, 0xbd, 0xed, 0xb8, 0x80]);
    expect(failure(patched(tarOf({ name: 'x', type: 'file' }), 0, pair)).code).toBe('corrupt');
  });
});

describe('the end of the stream', () => {
  const tar = tarOf({ name: 'a', type: 'file', content: 'hello' }, { name: 'b', type: 'directory' });

  it.each([
    ['both zero blocks', tar.length],
    ['one zero block', tar.length - 512],
    ['no zero block', tar.length - 1024],
    ['half a zero block', tar.length - 256],
  ])('may come after %s', (_, length) => {
    expect(readTar(tar.subarray(0, length)).map(({ name }) => name)).toEqual(['a', 'b']);
  });

  it('ignores what follows the end of the archive', () => {
    expect(readTar(Buffer.concat([tar, Buffer.from('garbage'.repeat(1000))]))).toHaveLength(2);
  });

  it('refuses an entry after a lone zero block, which other readers would lose', () => {
    expect(failure(Buffer.concat([tar.subarray(0, tar.length - 512), tar])).message).toBe(
      `tar has a lone zero block at offset ${tar.length - 1024}, before more entries`,
    );
  });

  it('is an error inside data, naming the entry', () => {
    expect(failure(tar.subarray(0, 514)).message).toBe(
      'tar ends at offset 514 inside the data of "a" (entry at offset 0, 3 bytes missing): the stream is truncated',
    );
    expect(failure(tar.subarray(0, 300)).message).toContain('inside a header');
  });

  it('is an error after an extended header', () => {
    const long = tarOf({ name: 'n'.repeat(200), type: 'directory' });
    expect(failure(long.subarray(0, 1024)).message).toContain(
      'extended header (offset 0) that no entry follows',
    );
  });

  it('of nothing is an empty archive', () => {
    expect(readTar(Buffer.alloc(0))).toEqual([]);
  });
});

describe('malformed headers', () => {
  const plain = tarOf({ name: 'victim', type: 'file', content: 'hello' });
  const extended = tarOf({ name: 'victim', type: 'file', content: 'x', records: { 'VENDOR.a': 'b' } });
  const withBody = (body: string) => {
    const padded = Buffer.alloc(512);
    padded.write(body, 'latin1');
    const size = body.length.toString(8).padStart(11, '0');
    const copy = patched(extended, 124, size);
    copy.set(padded, 512);
    return copy;
  };

  it.each<[string, Buffer, string]>([
    [
      'a wrong checksum',
      Buffer.concat([Buffer.from('X'), plain.subarray(1)]),
      'tar header at offset 0: wrong checksum',
    ],
    ['no tar at all', Buffer.from('GIF89a'.repeat(200)), 'tar header at offset 0: wrong checksum'],
    ['a number that is none', patched(plain, 124, '0000000zz05'), 'malformed number in the field size'],
    ['a negative size', patched(plain, 124, Buffer.alloc(12, 0xff)), 'impossible size "-1"'],
    [
      'a size beyond reason',
      patched(plain, 124, Buffer.from([0x80, 0x7f, ...Buffer.alloc(10, 1)])),
      'field size',
    ],
    ['an unknown type', patched(plain, 156, '~'), 'unknown entry type "~"'],
    ['several volumes', patched(plain, 156, 'M'), 'several volumes'],
    ['a huge extended header', patched(extended, 124, '77777777777'), 'at most 1048576 are accepted'],
    ['a record without length', withBody('abc=d\n'), 'PAX record at byte 0 has no valid length'],
    ['a record longer than the header', withBody('99 a=b\n'), 'says it is 99 bytes long, of 7'],
    ['a record of length 0', withBody('0 a=b\n'), 'says it is 0 bytes long'],
    ['a record without newline', withBody('6 a=bc'), "doesn't end with a newline"],
    ['a record without keyword', withBody('5 =b\n'), 'has no keyword'],
    ['a record without =', withBody('6 abc\n'), 'has no keyword'],
    ['a NUL in a path', withBody('12 path=a\0b\n'), 'PAX record path has a NUL'],
    ['a size that is no number', withBody('11 size=-5\n'), 'impossible size "-5"'],
    ['a malformed time', withBody('13 mtime=1e5\n'), 'malformed PAX time mtime="1e5"'],
    ['a record that is no text', withBody('7 a=\xff\xfe\n'), "isn't valid UTF-8"],
  ])('%s', (_, tar, message) => {
    const error = failure(tar);
    expect(error.code).toBe('corrupt');
    expect(error.message).toContain(message);
    expect(error.message).toMatch(/offset \d+/);
  });

  it('refuses global headers without end, which would all have to be kept', () => {
    const one = (n: number) => {
      const tar = makeTar((writer) =>
        writer.entry({ name: 'x', type: 'directory', records: { [`V.${n}`]: 'v'.repeat(1000) } }),
      );
      // The extended header alone, made a global one.
      return patched(tar, 156, 'g').subarray(0, -1536);
    };
    const error = failure(Buffer.concat(Array.from({ length: 70 }, (_, n) => one(n))));
    expect(error.code).toBe('corrupt');
    expect(error.message).toContain('global headers of more than 65536 bytes');
  });

  it('an empty record deletes what a global header said', () => {
    const tar = makeTar((writer) =>
      writer.entry({ name: 'x', type: 'directory', records: { 'A.b': '1', 'A.c': '' } }),
    );
    expect([...readTar(tar)[0]!.records]).toEqual([['A.b', '1']]);
  });
});

describe('anything', () => {
  const seed = makeTar((tar) => {
    tar.file(
      { name: 'n'.repeat(150), mtime: 1_234_567_890_123_456_789n, records: { 'V.x': 'ä' } },
      Buffer.alloc(700, 1),
    );
    tar.entry({ name: 'link', type: 'symlink', linkName: 'target'.repeat(30) });
    tar.entry({ name: 'd/', type: 'directory' });
  });
  const read = (tar: Uint8Array) => {
    const reader = new TarReader({ entry: () => undefined, data: () => undefined, end: () => undefined });
    try {
      reader.write(tar);
      reader.finish();
    } catch (error) {
      if (!(error instanceof CimletError)) throw error;
    }
  };

  it('cut anywhere, ends in an error or an archive', () => {
    for (let length = 0; length <= seed.length; length += 64) read(seed.subarray(0, length));
  });

  it('with flipped bits, ends in an error or an archive', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(seed.length * 8 - 1), { minLength: 1, maxLength: 4 }),
        fc.boolean(),
        (bits, fix) => {
          const copy = Buffer.from(seed);
          for (const bit of bits) copy[bit >> 3]! ^= 1 << (bit & 7);
          read(copy);
          // With the checksum made right, the damage gets past the door.
          if (fix) for (const bit of bits) read(patched(copy, 0, copy.subarray(0, 1), bit >> 12));
        },
      ),
      { numRuns: 2000 },
    );
  });

  it('random blocks end in an error or an archive', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 3000 }), read), { numRuns: 500 });
  });

  it('comes out the same in pieces of any size', () => {
    const whole = readTar(seed);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: seed.length }), (size) => {
        expect(readTar(seed, size)).toEqual(whole);
      }),
      { numRuns: 50 },
    );
  });
});
