import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createBlockCimWriter } from '../../src/cim/block-writer.ts';
import { publishCim, publishContainer } from '../../src/cim/publish.ts';
import { type CimReader, openCim } from '../../src/cim/reader.ts';
import { createCimWriter } from '../../src/cim/writer.ts';
import { CimletError } from '../../src/errors.ts';
import { mergeHives } from '../../src/hive/merge.ts';
import { createHive, createKey, createValue, type Hive, type HiveKey } from '../../src/hive/model.ts';
import { readHive } from '../../src/hive/reader.ts';
import { writeHive } from '../../src/hive/writer.ts';
import { exportLayer } from '../../src/layers/export-layer.ts';
import { type ImportResult, importBlockLayer, importLayer } from '../../src/layers/import-layer.ts';
import type { LayerTarWriter } from '../../src/layers/layer-tar.ts';
import { lowerViewOf } from '../../src/layers/lower-view.ts';
import { ownHiveMerger } from '../../src/layers/own-hives.ts';
import { inChunks, makeLayer } from '../tar/tar-helpers.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cimlet-hives-'));
});
const opened: CimReader[] = [];
afterEach(() => {
  for (const reader of opened.splice(0)) reader.close();
  rmSync(directory, { recursive: true, force: true });
});

function open(file: string): CimReader {
  const reader = openCim(file);
  opened.push(reader);
  return reader;
}

const NAMES = ['SYSTEM', 'SOFTWARE', 'SAM', 'SECURITY', 'DEFAULT'];

function hive(...subkeys: HiveKey[]): Hive {
  return createHive(createKey('ROOT', { subkeys }));
}

function key(name: string, value: string, fields: Partial<HiveKey> = {}): HiveKey {
  return createKey(name, { values: [createValue('v', 3, Buffer.from(value))], ...fields });
}

const LOWER = hive(key('kept', '1'), key('changed', '1'), key('gone', '1'));
const DELTA = hive(key('changed', '2'), key('gone', '', { layer: 'tombstone', values: [] }), key('new', '2'));

const BASE = (layer: LayerTarWriter): void => {
  for (const name of NAMES) layer.file(`Files/Windows/System32/config/${name}`, writeHive(LOWER));
};
const SYSTEM_DELTA = (delta: Hive) => (layer: LayerTarWriter) => {
  layer.directory('Hives');
  layer.file('Hives/SYSTEM_DELTA', writeHive(delta));
};

/** Names and values of the keys below the root. */
function keysOf(bytes: Buffer): Record<string, string> {
  const { root } = readHive(bytes, 'result');
  return Object.fromEntries(root.subkeys.map(({ name, values }) => [name, values[0]?.data.toString() ?? '']));
}

/** Imports layers base first in the given format, with the layers below; the results, and the readers, topmost first. */
async function importAll(format: string, fills: readonly ((layer: LayerTarWriter) => void)[]) {
  const readers: CimReader[] = [];
  const results: ImportResult[] = [];
  for (const [index, fill] of fills.entries()) {
    const name = `layer${index}`;
    const regionGuid = `00000000-0000-4000-8000-00000000000${index}`;
    const tar = inChunks(makeLayer(fill), 1000);
    const spool = { spoolDirectory: directory };
    const isBase = index === 0;
    const file = join(directory, `${name}.bcim`);
    if (format === 'block') {
      const writer = createBlockCimWriter({ file, name, regionGuid });
      try {
        const lower = isBase ? undefined : lowerViewOf(...readers);
        results.push(await importBlockLayer(tar, writer, { lower, ...spool }));
        writer.finish();
        publishContainer(file);
      } finally {
        writer.close();
      }
      readers.unshift(open(file));
      continue;
    }
    const parent = isBase ? {} : { parent: `layer${index - 1}` };
    const writer = createCimWriter({ directory, name, regionGuid, ...parent });
    try {
      const lower = isBase ? {} : { lower: lowerViewOf(readers[0]!) };
      results.push(await importLayer(tar, writer, { isBase, ...lower, ...spool }));
      writer.finish();
    } finally {
      writer.close();
    }
    publishCim(directory, name, regionGuid);
    readers.unshift(open(join(directory, `${name}.cim`)));
  }
  const view = lowerViewOf(...(format === 'block' ? readers : readers.slice(0, 1)));
  const read = (path: string) => Buffer.concat([...view.read(path)]);
  const exported =
    format === 'block'
      ? [...exportLayer(readers[0]!)]
      : [...exportLayer(readers[0]!, { parent: readers[1] })];
  return { results, base: read('Hives/SYSTEM_BASE'), read, exported: Buffer.concat(exported) };
}

describe.each(['forked', 'block'])('hives of %s layers', (format) => {
  it('are merged with those below', async () => {
    const { base, results, read } = await importAll(format, [BASE, SYSTEM_DELTA(DELTA)]);
    expect(keysOf(base)).toEqual({ changed: '2', kept: '1', new: '2' });
    expect(base.equals(writeHive(mergeHives(LOWER, DELTA)))).toBe(true);
    expect(keysOf(read('Hives/SOFTWARE_BASE'))).toEqual({ changed: '1', gone: '1', kept: '1' });
    expect(results.flatMap(({ warnings }) => warnings)).toEqual([]);
    expect(readdirSync(directory).filter((name) => name.startsWith('tmp-'))).toEqual([]);
  });

  it('are merged with the nearest below', async () => {
    const plain = (layer: LayerTarWriter) => layer.file('Files/x', '');
    const fills = [BASE, SYSTEM_DELTA(DELTA), plain, SYSTEM_DELTA(hive(key('kept', '3')))];
    const { base } = await importAll(format, fills);
    expect(keysOf(base)).toEqual({ changed: '2', kept: '3', new: '2' });
  });

  it('stay when the layer empties Hives/', async () => {
    const { base, exported } = await importAll(format, [
      BASE,
      (layer) => {
        SYSTEM_DELTA(DELTA)(layer);
        layer.opaque('Hives');
      },
    ]);
    expect(keysOf(base)).toEqual({ changed: '2', kept: '1', new: '2' });
    expect(exported.includes('Hives/.wh.SAM_BASE')).toBe(true);
    expect(exported.includes('SYSTEM_BASE')).toBe(false);
  });

  it('warn when a delta was saved in the middle of a write', async () => {
    const dirty = writeHive(DELTA);
    dirty.writeUInt32LE(dirty.readUInt32LE(4) + 1, 4);
    let sum = 0;
    for (let at = 0; at < 508; at += 4) sum ^= dirty.readInt32LE(at);
    dirty.writeInt32LE(sum, 508);
    const { results } = await importAll(format, [BASE, (layer) => layer.file('Hives/SYSTEM_DELTA', dirty)]);
    expect(results[1]?.warnings).toEqual([
      'registry hive Hives/SYSTEM_DELTA was saved in the middle of a write: changes that only its log has are lost',
    ]);
  });

  it.each<[string, (layer: LayerTarWriter) => void, RegExp]>([
    [
      'a malformed delta',
      (layer) => layer.file('Hives/SYSTEM_DELTA', 'no hive'),
      /^tar entry "Hives\/SYSTEM_DELTA" at offset 0: .*Hives\/SYSTEM_DELTA/,
    ],
    [
      'a damaged delta',
      (layer) => {
        const bytes = writeHive(DELTA);
        bytes.fill(0xff, 4096 + 32, 4096 + 64);
        layer.file('Hives/SYSTEM_DELTA', bytes);
      },
      /^tar entry "Hives\/SYSTEM_DELTA" at offset 0: .*offset/,
    ],
    [
      'a hive with an alternate stream',
      (layer) => {
        layer.file('Hives/SYSTEM_DELTA', writeHive(DELTA));
        layer.stream('Hives/SYSTEM_DELTA', 's', '');
      },
      /^tar entry "Hives\/SYSTEM_DELTA:s" at offset \d+: a registry hive or boot file can not have alternate streams$/,
    ],
    [
      'a hive that is a link',
      (layer) => layer.hardLink('Files/Windows/System32/config/SYSTEM', 'Files/x'),
      /^tar entry .* at offset 0: a registry hive or boot file can not be a hard link$/,
    ],
  ])('refuse %s', async (_, fill, message) => {
    const error = await importAll(format, [BASE, fill]).catch((cause: unknown) => cause);
    expect(error).toBeInstanceOf(CimletError);
    expect(error).toMatchObject({ code: 'corrupt', message: expect.stringMatching(message) });
  });

  it('refuse a delta over no hive', async () => {
    const error = importAll(format, [(layer) => layer.file('Files/x', ''), SYSTEM_DELTA(DELTA)]);
    await expect(error).rejects.toMatchObject({
      code: 'corrupt',
      message: expect.stringContaining('the layers below have no Hives/SYSTEM_BASE'),
    });
  });

  it('of the utility VM come last, and links to them work', async () => {
    const path = 'UtilityVM/Files/EFI/Microsoft/Boot/bootmgfw.efi';
    const { read } = await importAll(format, [
      (layer) => {
        BASE(layer);
        layer.file(path, 'boot');
        layer.hardLink('UtilityVM/Files/twin', path);
        layer.hardLink('UtilityVM/Files/third', 'UtilityVM/Files/twin');
      },
    ]);
    for (const name of [path, 'UtilityVM/Files/twin', 'UtilityVM/Files/third'])
      expect(read(name).toString()).toBe('boot');
  });

  it('written twice count once', async () => {
    const { read } = await importAll(format, [
      (layer) => {
        BASE(layer);
        layer.hardLink('Files/link', 'Files/Windows/System32/config/SAM');
        layer.file('Files/Windows/System32/config/SAM', 'the second');
        layer.file('Files/link', 'a file after all');
      },
    ]);
    expect(read('Files/Windows/System32/config/SAM').toString()).toBe('the second');
    expect(read('Files/link').toString()).toBe('a file after all');
  });
});

it('hives that would take too much memory are refused', () => {
  const base = { name: 'Hives/SAM_BASE below', size: 600 * 2 ** 20, chunks: [] };
  const delta = { name: 'Hives/SAM_DELTA', size: 1, chunks: [] };
  const create = () => expect.unreachable();
  expect(() => ownHiveMerger.merge(base, delta, create)).toThrow(
    'registry hive Hives/SAM_BASE below has 629145600 bytes; at most 268435456 can be merged',
  );
});
