import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type BlockCimWriter, createBlockCimWriter } from '../../src/cim/block-writer.ts';
import { publishContainer } from '../../src/cim/publish.ts';
import { openCim } from '../../src/cim/reader.ts';
import { FileAttribute } from '../../src/cim/types.ts';
import { exportLayer } from '../../src/layers/export-layer.ts';
import { encodeExtendedAttributes } from '../../src/layers/extended-attributes.ts';
import type { LayerTarWriter } from '../../src/layers/layer-tar.ts';
import { HandMadeImage } from '../cim/hand-made.ts';
import { dumpCim, importIntoCims, makeLayer, readTar } from '../tar/tar-helpers.ts';
import { importIntoBlockCims, withCims } from './block-layers.ts';
import { expected, type Operation, stack, tarOfOperations } from './stack-model.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cimlet-export-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const folder = () => mkdtempSync(join(directory, 'x-'));

/** Every file of a folder by its digest. */
function digests(path: string): Record<string, string> {
  const names = readdirSync(path).sort();
  return Object.fromEntries(
    names.map((name) => [
      name,
      createHash('sha256')
        .update(readFileSync(join(path, name)))
        .digest('hex'),
    ]),
  );
}

/** Exports each layer of a chain of forks, base first, as they were imported into `where`. */
function exportForks(where: string, count: number): Buffer[] {
  return Array.from({ length: count }, (_, index) => {
    const cim = openCim(join(where, `layer${index}.cim`));
    const parent = index === 0 ? undefined : openCim(join(where, `layer${index - 1}.cim`));
    try {
      return Buffer.concat([...exportLayer(cim, { parent })]);
    } finally {
      cim.close();
      parent?.close();
    }
  });
}

/** Imports layers as forks, exports and imports them again; both folders and the exported tars. */
async function forksAgain(layers: readonly Uint8Array[]) {
  const [one, two] = [folder(), folder()];
  await importIntoCims(layers, one);
  const tars = exportForks(one, layers.length);
  await importIntoCims(tars, two);
  return { one, two, tars };
}

async function blocksAgain(layers: readonly Uint8Array[]) {
  const [one, two] = [folder(), folder()];
  const { files } = await importIntoBlockCims(layers, one);
  const tars = await withCims(files, (readers) =>
    readers.reverse().map((cim) => Buffer.concat([...exportLayer(cim)])),
  );
  await importIntoBlockCims(tars, two);
  return { one, two, tars };
}

const SD = (rid: number) =>
  Buffer.from(
    `0100008014000000000000000000000000000000010100000000000${5}${rid.toString(16).padStart(2, '0')}000000`,
    'hex',
  );

type Fill = (layer: LayerTarWriter) => void;

const times = (n: bigint) => ({
  creationTime: 133_000_000_000_000_000n + n,
  lastWriteTime: 133_000_000_000_000_001n + n,
  changeTime: 133_000_000_000_000_002n + n,
  lastAccessTime: 133_000_000_000_000_003n + n,
});

const RICH: Fill[] = [
  (layer) => {
    layer.directory('Files', { ...times(1n), securityDescriptor: SD(18) });
    layer.directory('Files/Windows', times(2n));
    layer.directory('Files/Windows/System32', times(3n));
    layer.directory('Files/Windows/System32/config', times(4n));
    for (const name of ['SYSTEM', 'SOFTWARE', 'SAM', 'SECURITY', 'DEFAULT'])
      layer.file(`Files/Windows/System32/config/${name}`, `hive ${name}`, times(5n));
    layer.hardLink('Files/Windows/hive', 'Files/Windows/System32/config/SAM');
    layer.file('Files/big', 'x'.repeat(100_000), { ...times(6n), attributes: 0x21 });
    layer.stream('Files/big', 'stream', 'y'.repeat(9000));
    layer.file('Files/ea', 'small', {
      ...times(7n),
      securityDescriptor: SD(19),
      extendedAttributes: [
        { name: 'A', value: Buffer.from('value') },
        { name: 'B', value: Buffer.alloc(300, 7) },
      ],
    });
    layer.symlink('Files/relative', '..\\big', times(8n));
    layer.symlink('Files/absolute', 'C:\\Windows', times(9n), true);
    layer.symlink('Files/unc', '\\\\server\\share\\x', times(9n), true);
    layer.mountPoint('Files/mount', '\\\\?\\Volume{01234567-0123-0123-0123-0123456789ab}\\', times(10n));
    layer.hardLink('Files/twin', 'Files/ea');
    layer.file(`Files/${'long '.repeat(40)}ü😀`, 'long', times(11n));
    layer.file('Files/lone \ud800', '', times(0n));
    layer.directory('UtilityVM', times(12n));
    layer.file('UtilityVM/Files/EFI/Microsoft/Boot/BCD', 'bcd', times(13n));
  },
  (layer) => {
    layer.directory('Files', { ...times(1n), securityDescriptor: SD(18) });
    layer.directory('Files/Windows', { ...times(20n), securityDescriptor: SD(20) });
    layer.file('Files/Windows/new', 'new', { ...times(21n), securityDescriptor: SD(21) });
    layer.directory('Files/Windows/System32', { ...times(22n), securityDescriptor: SD(22) });
    layer.stream('Files/Windows/System32', 'note', 'on a directory');
    layer.file('Files/Windows/System32/new', 'new', { ...times(23n), securityDescriptor: SD(23) });
    layer.hardLink('Files/Windows/ea', 'Files/ea');
    layer.whiteout('Files/ea');
    layer.whiteout('Files/relative');
    layer.file('Files/twin', 'its own now', times(24n));
  },
  (layer) => {
    layer.directory('Files', { ...times(30n), attributes: FileAttribute.hidden });
    layer.directory('Files/Windows', times(31n));
    layer.opaque('Files/Windows/System32');
    layer.whiteout('Files/big');
    layer.hardLink('Files/new big', 'Files/big');
    layer.symlink('Files/mount', 'nowhere', times(32n));
  },
];

describe('exporting a fork', () => {
  it('and importing it again gives the same bytes', async () => {
    // In the last layer the link needs the file that the whiteout before it would have removed.
    const layers = [RICH[0]!, RICH[1]!].map(makeLayer);
    const { one, two } = await forksAgain(layers);
    expect(digests(two)).toEqual(digests(one));
  });

  it('lists what it adds, in order, without what the import added', async () => {
    const { tars } = await forksAgain([RICH[0]!, RICH[1]!].map(makeLayer));
    const names = tars.map((tar) =>
      readTar(tar).map(({ name, linkName }) => (linkName ? `${name} -> ${linkName}` : name)),
    );
    expect(names[0]).toEqual([
      'Files/',
      'Files/Windows/',
      'Files/Windows/System32/',
      'Files/Windows/System32/config/',
      'Files/big',
      'Files/big:stream',
      'Files/ea',
      'Files/twin -> Files/ea',
      'Files/relative -> ../big',
      'Files/absolute -> C:/Windows',
      'Files/unc -> //server/share/x',
      'Files/mount -> //?/Volume{01234567-0123-0123-0123-0123456789ab}/',
      `Files/${'long '.repeat(40)}ü😀`,
      'Files/lone \ud800',
      'UtilityVM/',
      'UtilityVM/Files/',
      'UtilityVM/Files/EFI/',
      'UtilityVM/Files/EFI/Microsoft/',
      'UtilityVM/Files/EFI/Microsoft/Boot/',
      'Files/Windows/System32/config/SYSTEM',
      'Files/Windows/System32/config/SOFTWARE',
      'Files/Windows/System32/config/SAM',
      'Files/Windows/hive -> Files/Windows/System32/config/SAM',
      'Files/Windows/System32/config/SECURITY',
      'Files/Windows/System32/config/DEFAULT',
      'UtilityVM/Files/EFI/Microsoft/Boot/BCD',
    ]);
  });

  it('restates unchanged directories when the layer did', async () => {
    const base: Fill = (layer) => {
      layer.directory('Files');
      layer.directory('Files/a');
      layer.directory('Files/b');
    };
    const { one, two, tars } = await forksAgain(
      [base, (layer: LayerTarWriter) => layer.directory('Files/a')].map((fill) => makeLayer(fill)),
    );
    expect(digests(two)).toEqual(digests(one));
    expect(readTar(tars[1]!).map(({ name }) => name)).toContain('Files/a/');
  });

  it('keeps a new spelling of a directory', async () => {
    const layers = [
      (layer: LayerTarWriter) => layer.directory('Files/dir'),
      (layer: LayerTarWriter) => layer.directory('Files/DIR'),
    ];
    const { one, two, tars } = await forksAgain(layers.map((fill) => makeLayer(fill)));
    expect(digests(two)).toEqual(digests(one));
    expect(readTar(tars[1]!).map(({ name }) => name)).toEqual(['Files/DIR/']);
  });

  it('copies a file that links to what no lower path shows any more', async () => {
    const cycle: Fill[] = [
      (layer) => {
        layer.file('Files/a', 'a');
        layer.file('Files/b', 'b');
      },
      (layer) => {
        layer.hardLink('Files/n', 'Files/a');
        layer.hardLink('Files/a', 'Files/b');
        layer.hardLink('Files/b', 'Files/n');
        layer.file('Files/n', 'n');
      },
    ];
    const { one, two } = await forksAgain(cycle.map(makeLayer));
    const contents = (where: string) =>
      [...dumpCim(join(where, 'layer1.cim'))].map(([path, { content }]) => [path, content]);
    expect(contents(two)).toEqual(contents(one));
  });

  it('writes nothing for a layer that changes nothing', async () => {
    const { one, two, tars } = await forksAgain([makeLayer(RICH[0]!), makeLayer(() => undefined)]);
    expect(digests(two)).toEqual(digests(one));
    expect(readTar(tars[1]!)).toEqual([]);
  });

  it('keeps a new directory in place of one with the same name apart from the lower content', async () => {
    const base: Fill = (layer) => {
      layer.file('Files/d/lower', 'lower');
      layer.file('Files/f', 'f');
    };
    const upper: Fill = (layer) => {
      layer.hardLink('Files/saved', 'Files/d/lower');
      layer.whiteout('Files/d');
      layer.directory('Files/d');
      layer.file('Files/d/new', 'new');
    };
    const { one, two } = await forksAgain([base, upper].map(makeLayer));
    expect(digests(two)).toEqual(digests(one));
  });
});

describe('exporting a block layer', () => {
  it('and importing it again gives the same bytes', async () => {
    const { one, two } = await blocksAgain(RICH.map(makeLayer));
    expect(digests(two)).toEqual(digests(one));
  });

  it('writes tombstones as whiteouts and merge links as links', async () => {
    const { tars } = await blocksAgain(RICH.map(makeLayer));
    expect(
      readTar(tars[2]!).map(({ name, linkName }) => (linkName ? `${name} -> ${linkName}` : name)),
    ).toEqual([
      'Files/',
      'Files/Windows/',
      'Files/Windows/System32/',
      'Files/Windows/System32:note',
      'Files/mount -> nowhere',
      'Files/new big -> Files/big',
      'Files/.wh.big',
      'Files/Windows/System32/.wh.config',
      'Files/Windows/System32/.wh.new',
    ]);
  });
});

describe('exporting', () => {
  const TIMES = { creationTime: 0n, lastWriteTime: 0n, changeTime: 0n, lastAccessTime: 0n };

  /** The names in the tar of a block CIM written by hand. */
  function exported(fill: (writer: BlockCimWriter) => void, signal?: AbortSignal): string[] {
    const file = join(folder(), 'x.bcim');
    const writer = createBlockCimWriter({
      file,
      name: 'x',
      regionGuid: '00000000-0000-4000-8000-000000000000',
    });
    try {
      writer.createFile('Files', { ...TIMES, attributes: FileAttribute.directory, size: 0 }).close();
      fill(writer);
      writer.finish();
    } finally {
      writer.close();
    }
    publishContainer(file);
    const cim = openCim(file);
    try {
      return readTar(Buffer.concat([...exportLayer(cim, { signal })])).map(({ name }) => name);
    } finally {
      cim.close();
    }
  }

  it('writes an opaque directory as one', () => {
    const names = exported((writer) => {
      writer.tombstone('Files/d');
      writer.createFile('Files/d', { ...TIMES, attributes: FileAttribute.directory, size: 0 }).close();
      writer.createFile('Files/d/x', { ...TIMES, attributes: 0, size: 0 }).close();
    });
    expect(names).toEqual(['Files/', 'Files/d/', 'Files/d/.wh..wh..opq', 'Files/d/x']);
  });

  it.each([
    [
      { reparseData: Buffer.from('170000800400000001020304', 'hex') },
      'its reparse point (tag 0x80000017) is no symlink or mount point',
    ],
    [
      { extendedAttributes: encodeExtendedAttributes([{ name: 'a=b', value: Buffer.from('v') }]) as Buffer },
      'its extended attribute "a=b" has a \'=\' in its name',
    ],
  ])('refuses what a tar has no place for %#', (metadata, message) => {
    const fill = (writer: BlockCimWriter) =>
      writer.createFile('Files/x', { ...TIMES, attributes: 0, size: 0, ...metadata }).close();
    expect(() => exported(fill)).toThrow(
      expect.objectContaining({
        code: 'failed-precondition',
        message: expect.stringMatching(/^export "Files\/x" from .*x\.bcim: /),
      }),
    );
    expect(() => exported(fill)).toThrow(message);
  });

  it('refuses a directory in itself instead of writing without end', () => {
    const image = new HandMadeImage(88);
    const cim = openCim(image.write(folder(), image.addDirectory([['FILES', 1]])));
    try {
      expect(() => [...exportLayer(cim)]).toThrow('directory FILES is reached twice');
    } finally {
      cim.close();
    }
  });

  it('stops when told to', () => {
    expect(() => exported(() => undefined, AbortSignal.abort())).toThrow(
      expect.objectContaining({ code: 'cancelled' }),
    );
  });
});

/** Descriptors that are partly the same, so that some are stored once for several files. */
function tarsOf(layers: readonly Operation[][]): Buffer[] {
  return layers.map((operations, layer) =>
    tarOfOperations(operations, (index) => ({
      ...times(BigInt(index)),
      securityDescriptor: SD(18 + ((layer * 5 + index * index) % 7)),
      ...(index % 3 === 0 && { extendedAttributes: [{ name: 'E', value: Buffer.from([layer, index % 2]) }] }),
    })),
  );
}

/** Each path once, parents by themselves, so that no file is written that another replaces. */
function withoutRepeats(layers: readonly Operation[][]): Operation[][] {
  return layers.map((layer) => {
    const seen: string[] = [];
    return layer.filter((operation) => {
      const { path } = operation;
      const clashes = (other: string) =>
        other === path || other.startsWith(`${path}/`) || path.startsWith(`${other}/`);
      const target = operation.op === 'hard-link' ? operation.target : undefined;
      if (operation.op === 'whiteout') return true;
      if (operation.op === 'opaque') {
        if (!seen.some((other) => other.startsWith(`${path}/`))) seen.push(path);
        return true;
      }
      if (seen.includes(path) || (operation.op !== 'directory' && seen.some(clashes))) return false;
      if (seen.some((other) => other.startsWith(`${path}/`)) || target === path) return false;
      seen.push(path);
      return true;
    });
  });
}

describe('random stacks, exported and imported again', () => {
  it('give the same forked CIMs', async () => {
    let compared = 0;
    await fc.assert(
      fc.asyncProperty(stack.map(withoutRepeats), async (layers) => {
        fc.pre(expected(layers) !== undefined && layers.flat().length > 0);
        const { one, two } = await forksAgain(tarsOf(layers));
        const last = `layer${layers.length - 1}.cim`;
        expect(dumpCim(join(two, last))).toEqual(dumpCim(join(one, last)));
        expect(digests(two)).toEqual(digests(one));
        compared++;
      }),
      { numRuns: 40 },
    );
    expect(compared).toBe(40);
  });

  it('give the same files when names were written more than once, and the same bytes from then on', async () => {
    await fc.assert(
      fc.asyncProperty(stack, async (layers) => {
        fc.pre(expected(layers) !== undefined);
        const { one, two, tars } = await forksAgain(tarsOf(layers));
        const last = `layer${layers.length - 1}.cim`;
        expect(dumpCim(join(two, last))).toEqual(dumpCim(join(one, last)));
        const again = await forksAgain(tars);
        expect(digests(again.two)).toEqual(digests(again.one));
      }),
      { numRuns: 40 },
    );
  });

  it('give the same block CIMs', async () => {
    let compared = 0;
    await fc.assert(
      fc.asyncProperty(stack.map(withoutRepeats), async (layers) => {
        fc.pre(expected(layers) !== undefined);
        const tars = tarsOf(layers);
        const probe = folder();
        try {
          await importIntoBlockCims(tars, probe);
        } catch (error) {
          expect(error).toMatchObject({ code: 'corrupt' });
          return;
        }
        const { one, two } = await blocksAgain(tars);
        expect(digests(two)).toEqual(digests(one));
        compared++;
      }),
      { numRuns: 40 },
    );
    expect(compared).toBeGreaterThan(10);
  });
});
