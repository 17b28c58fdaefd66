import { lstatSync, mkdtempSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CimletError } from '../../src/errors.ts';
import { TarWriter } from '../../src/tar/tar-writer.ts';
import { hasTool, requireOrSkip } from '../support/requirements.ts';
import { makeLayer, makeTar, readTar, run } from './tar-helpers.ts';

const LONG = `${'a'.repeat(120)}/${'b'.repeat(150)}`;

describe('TarWriter', () => {
  it.runIf(requireOrSkip('tar', hasTool('tar')))('is read by the system tar', () => {
    const directory = mkdtempSync(join(tmpdir(), 'cimlet-tar-'));
    try {
      const tar = makeTar((writer) => {
        writer.entry({ name: `${'a'.repeat(120)}/`, type: 'directory', mode: 0o755 });
        writer.file({ name: LONG, mode: 0o640, mtime: 1_600_000_000_123_456_700n }, Buffer.alloc(1000, 'x'));
        writer.file({ name: 'ünï-😀', mode: 0o644, mtime: -1_500_000_000n }, Buffer.from('text'));
        writer.entry({ name: 'hard', type: 'hard-link', linkName: LONG });
        writer.entry({ name: 'soft', type: 'symlink', linkName: `../${'t'.repeat(200)}`, mode: 0o777 });
      });
      writeFileSync(join(directory, 't.tar'), tar);
      const complaints = run('tar', ['--warning=no-unknown-keyword', '-xf', 't.tar'], { cwd: directory });
      expect(complaints.toString()).toBe('');
      const long = lstatSync(join(directory, LONG), { bigint: true });
      expect(long).toMatchObject({ size: 1000n, nlink: 2n, mtimeNs: 1_600_000_000_123_456_700n });
      expect(lstatSync(join(directory, 'hard')).ino).toBe(Number(long.ino));
      expect(readFileSync(join(directory, 'ünï-😀'), 'utf8')).toBe('text');
      expect(lstatSync(join(directory, 'ünï-😀'), { bigint: true }).mtimeNs).toBe(-1_500_000_000n);
      expect(readlinkSync(join(directory, 'soft'))).toBe(`../${'t'.repeat(200)}`);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });

  it.runIf(requireOrSkip('python3', hasTool('python3')))('is read by Python, PAX records included', () => {
    const tar = makeLayer((layer) =>
      layer.file('Files/a', 'x', {
        attributes: 0x21,
        creationTime: 133_000_000_000_000_001n,
        lastWriteTime: 133_000_000_000_000_002n,
        securityDescriptor: Buffer.from('0100048000000000', 'hex'),
        extendedAttributes: [{ name: 'NOTE', value: Buffer.from('v') }],
      }),
    );
    const script = `
import tarfile, sys, json
t = tarfile.open(fileobj=sys.stdin.buffer, mode='r|')
print(json.dumps([[m.name, m.size, m.pax_headers] for m in t]))`;
    expect(JSON.parse(run('python3', ['-c', script], { input: tar }).toString())).toEqual([
      [
        'Files/a',
        1,
        {
          mtime: '1655526400.0000002',
          'LIBARCHIVE.creationtime': '1655526400.0000001',
          'MSWINDOWS.fileattr': '33',
          'MSWINDOWS.rawsd': 'AQAEgAAAAAA=',
          'MSWINDOWS.xattr.NOTE': 'dg==',
        },
      ],
    ]);
  });

  it('comes back from TarReader, whatever the names', () => {
    const text = fc
      .string({ unit: 'binary', minLength: 1, maxLength: 300 })
      .map((name) => `n${name.replaceAll('\0', '')}`);
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            name: text,
            link: text,
            mtime: fc.bigInt({ min: -(10n ** 18n), max: 10n ** 19n }),
            data: fc.uint8Array({ maxLength: 1100 }),
          }),
          { maxLength: 5 },
        ),
        (entries) => {
          const tar = makeTar((writer) => {
            for (const { name, link, mtime, data } of entries) {
              writer.file({ name, mtime, uid: 3_000_000 }, data);
              writer.entry({ name, type: 'symlink', linkName: link, atime: mtime });
            }
          });
          expect(tar.length % 512).toBe(0);
          const read = readTar(tar, 333);
          expect(read).toHaveLength(entries.length * 2);
          for (const [index, { name, link, mtime, data }] of entries.entries()) {
            expect(read[index * 2]).toMatchObject({ name, mtime, size: data.length, uid: 3_000_000 });
            expect(Buffer.compare(read[index * 2]!.content, data)).toBe(0);
            expect(read[index * 2 + 1]).toMatchObject({
              name,
              linkName: link,
              atime: mtime,
              type: 'symlink',
            });
          }
        },
      ),
      { numRuns: 200 },
    );
  });

  it('holds a caller to the declared size', () => {
    const writer = new TarWriter(() => undefined);
    writer.entry({ name: 'a', type: 'file', size: 3 });
    expect(() => writer.data(Buffer.from('abcd'))).toThrow(
      'write tar entry "a": 1 bytes more than its declared size',
    );
    writer.data(Buffer.from('ab'));
    expect(() => writer.finish()).toThrow(CimletError);
    expect(() => writer.entry({ name: 'b', type: 'directory' })).toThrow(
      '1 bytes of its declared size are missing',
    );
  });

  it('writes sizes beyond 8 GiB', () => {
    const chunks: Uint8Array[] = [];
    new TarWriter((bytes) => chunks.push(bytes)).entry({ name: 'big', type: 'file', size: 9 * 2 ** 30 });
    expect(() => readTar(Buffer.concat(chunks))).toThrow(`${9 * 2 ** 30} bytes missing`);
  });
});

describe('LayerTarWriter', () => {
  it('is deterministic', () => {
    const make = () =>
      makeLayer((layer) => {
        layer.directory('Files', { lastWriteTime: 133_000_000_000_000_000n });
        layer.file('Files/a', 'data', { changeTime: 1n, lastAccessTime: 133_000_000_000_000_007n });
        layer.stream('Files/a', 'Zone.Identifier', 'zone');
        layer.hardLink('Files/b', 'Files/a');
        layer.symlink('Files/c', '..\\x');
        layer.mountPoint('Files/d', 'C:\\data');
        layer.whiteout('Files/e');
        layer.opaque('Files/f');
      });
    expect(make().equals(make())).toBe(true);
    expect(readTar(make()).map(({ name, type }) => `${type} ${name}`)).toEqual([
      'directory Files/',
      'file Files/a',
      'file Files/a:Zone.Identifier',
      'hard-link Files/b',
      'symlink Files/c',
      'symlink Files/d',
      'file Files/.wh.e',
      'file Files/f/.wh..wh..opq',
    ]);
  });
});
