/** Other programs' word for it: hivex reads what we write, and we read what it writes. */

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { mergeHives } from '../../src/hive/merge.ts';
import {
  createHive,
  type Hive,
  type HiveKey,
  type HiveValue,
  KeyFlag,
  ValueType,
} from '../../src/hive/model.ts';
import { readHive } from '../../src/hive/reader.ts';
import { writeHive } from '../../src/hive/writer.ts';
import { hasTool, requireOrSkip } from '../support/requirements.ts';
import { arbitraryHive, key, pattern, richHive, text, tombstone } from './fixture.ts';

const tools = ['hivexml', 'hivexsh', 'hivexregedit'].every((name) => requireOrSkip(name, hasTool(name)));

/** Prints one line per key and per value with libhivex: bytes in hexadecimal, times as they are. */
const DUMP = `
  use Win::Hivex;
  sub hex_of { my ($text) = @_; utf8::encode($text); return unpack("H*", $text) }
  sub walk {
    my ($hive, $node, $depth) = @_;
    print "key $depth ", hex_of($hive->node_name($node)), " ", $hive->node_timestamp($node), "\\n";
    foreach my $value ($hive->node_values($node)) {
      my ($type, $data) = $hive->value_value($value);
      print "value ", hex_of($hive->value_key($value)), " $type ", unpack("H*", $data), "\\n";
    }
    walk($hive, $_, $depth + 1) foreach $hive->node_children($node);
  }
  my $hive = Win::Hivex->open($ARGV[0]);
  walk($hive, $hive->root, 0);
`;

function dumpTree(node: HiveKey, depth = 0): string {
  const hex = (name: string) => Buffer.from(name).toString('hex');
  const values = node.values.map(
    ({ name, type, data }) => `value ${hex(name)} ${type} ${data.toString('hex')}\n`,
  );
  const subkeys = node.subkeys.map((subkey) => dumpTree(subkey, depth + 1));
  return [`key ${depth} ${hex(node.name)} ${node.timestamp}\n`, ...values, ...subkeys].join('');
}

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'cimlet-hive-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function store(name: string, hive: Hive): string {
  const path = join(directory, name);
  writeFileSync(path, writeHive(hive));
  return path;
}

function run(command: string, args: string[], input = ''): string {
  return execFileSync(command, args, { input, encoding: 'utf8', maxBuffer: 1 << 28 });
}

function mergeText(path: string, registryText: string): void {
  const file = `${path}.reg`;
  writeFileSync(file, `Windows Registry Editor Version 5.00\n\n${registryText}`);
  run('hivexregedit', ['--merge', '--encoding', 'UTF-16LE', path, file]);
}

function lookup(root: HiveKey, ...path: string[]): HiveKey | undefined {
  return path.reduce<HiveKey | undefined>((at, name) => at?.subkeys.find((one) => one.name === name), root);
}

function strings(values: readonly HiveValue[]): Record<string, string> {
  return Object.fromEntries(
    values.map(({ name, type, data }) => [
      name,
      type === 1 ? data.toString('utf16le').replace(/\0$/, '') : data.toString('hex'),
    ]),
  );
}

describe.runIf(tools)('hivex', () => {
  it('sees every name, time, type and byte of what we write', () => {
    const hive = richHive();
    expect(run('perl', ['-e', DUMP, store('rich', hive)])).toBe(dumpTree(hive.root));
  });

  it('sees the same in any tree, merged ones too', () => {
    const names = fc.constantFrom('a', 'A', 'b', 'Key', 'é', 'É', 'ß', 'ж', '日', '\u{1f600}', 'c d');
    const hives = arbitraryHive({ names });
    fc.assert(
      fc.property(hives, hives, (base, delta) => {
        for (const hive of [base, mergeHives(base, delta)]) {
          // The library gives up on times beyond 63 bits.
          const signed = mapKeys(hive.root, (at) => ({
            ...at,
            timestamp: at.timestamp & ((1n << 63n) - 1n),
          }));
          expect(run('perl', ['-e', DUMP, store('any', { ...hive, root: signed })])).toBe(dumpTree(signed));
        }
      }),
      { numRuns: 25 },
    );
  });

  it('prints our tree as XML', () => {
    const hive = richHive();
    const printed = parseXml(run('sh', ['-c', 'hivexml "$1" | cat', 'sh', store('xml', hive)]));
    expect(printed).toEqual(describeAsXml(hive.root));
  });

  it('walks our keys in its shell', () => {
    const path = store('shell', richHive());
    const shell = (commands: string) => run('hivexsh', [path], commands).trim().split('\n');
    expect(shell('cd \\Names\nls\n')).toEqual(
      lookup(richHive().root, 'Names')?.subkeys.map(({ name }) => name),
    );
    expect(shell('cd \\Many\\Sub1099\nls\ncd \\\nls\n').length).toBe(richHive().root.subkeys.length);
    expect(shell('cd \\many\\SUB777\nlsval\n')).toEqual(['']);
    expect(shell('cd \\Names\nlsval é\n')).toEqual(['Latin-1']);
    expect(shell('cd \\A\\B\\C\\D\\E\\F\\Deepest\nlsval found\n')).toEqual(['yes']);
  });

  it('adds to our hive, and we read the result', () => {
    const path = store('added', createHive(key('ROOT', { flags: KeyFlag.noDelete })));
    const many = Array.from(
      { length: 40 },
      (_, i) => `[\\Software\\Vendor\\Sub${i}]\n"n"=dword:0000000${i % 10}\n`,
    );
    mergeText(
      path,
      `[\\Software]\n\n[\\Software\\Vendor]\n"text"="välue"\n@="default"\n"dword"=dword:01020304\n"hex"=hex:00,ff,10\n` +
        `"big"=hex:${pattern(20_000)
          .toString('hex')
          .replace(/..(?=.)/g, '$&,')}\n\n${many.join('\n')}`,
    );
    mergeText(path, '[-\\Software\\Vendor\\Sub7]\n\n[\\Software\\Vendor]\n"hex"=-\n"text"="changed"\n');
    const hive = readHive(readFileSync(path), 'added');
    const vendor = lookup(hive.root, 'Software', 'Vendor');
    expect(strings(vendor?.values ?? [])).toEqual({
      '': 'default',
      text: 'changed',
      dword: '04030201',
      big: pattern(20_000).toString('hex'),
    });
    expect(vendor?.subkeys.length).toBe(39);
    expect(lookup(hive.root, 'Software', 'Vendor', 'Sub7')).toBeUndefined();
    expect(hive.dirty).toBe(false);
    expect(run('perl', ['-e', DUMP, path])).toBe(dumpTree(hive.root));
    expect(readHive(writeHive(hive), 'again')).toEqual(hive);
  });

  it('agrees with our merge about the same changes', () => {
    const base = createHive(
      key('ROOT', {
        subkeys: [
          key('Keep', { values: [text('v', 'base')] }),
          key('Edit', { values: [text('a', 'base'), text('b', 'base')], subkeys: [key('x'), key('y')] }),
          key('Gone', { subkeys: [key('below')] }),
        ],
      }),
    );
    const delta = createHive(
      key('ROOT', {
        subkeys: [
          key('Edit', {
            values: [text('a', 'new'), tombstone('b')],
            subkeys: [key('x', { layer: 'tombstone' })],
          }),
          key('Gone', { layer: 'tombstone' }),
          key('New', { layer: 'supersede-tree', values: [text('v', 'new')] }),
        ],
      }),
    );
    const path = store('edited', base);
    mergeText(path, '[\\Edit]\n"a"="new"\n"b"=-\n\n[-\\Edit\\x]\n\n[-\\Gone]\n\n[\\New]\n"v"="new"\n');
    const outline = (root: HiveKey): unknown => [root.name, strings(root.values), root.subkeys.map(outline)];
    const byHivex = readHive(readFileSync(path), 'edited').root;
    const merged = readHive(writeHive(mergeHives(base, readHive(writeHive(delta), 'delta'))), 'merged').root;
    expect(outline(merged)).toEqual(outline(byHivex));
  });
});

function mapKeys(root: HiveKey, change: (at: HiveKey) => HiveKey): HiveKey {
  return change({ ...root, subkeys: root.subkeys.map((subkey) => mapKeys(subkey, change)) });
}

/** In milliseconds since 1601. */
const UNIX_EPOCH = 11_644_473_600_000;

const XML_TYPES: Record<number, string> = {
  [ValueType.none]: 'none',
  [ValueType.string]: 'string',
  [ValueType.expandString]: 'expand',
  [ValueType.binary]: 'binary',
  [ValueType.dword]: 'int32',
  [ValueType.dwordBigEndian]: 'int32',
  [ValueType.link]: 'link',
  [ValueType.multiString]: 'string-list',
  [ValueType.resourceList]: 'resource-list',
  [ValueType.fullResourceDescriptor]: 'resource-description',
  [ValueType.resourceRequirementsList]: 'resource-requirements',
  [ValueType.qword]: 'int64',
};

interface XmlKey {
  name: string;
  time: string;
  values: { type: string; name: string; value: string }[];
  subkeys: XmlKey[];
}

function describeAsXml(node: HiveKey): XmlKey {
  return {
    name: node.name,
    time: new Date(Number(node.timestamp / 10_000n) - UNIX_EPOCH).toISOString().replace(/\.\d+/, ''),
    values: node.values.map(({ name, type, data }) => ({
      type: XML_TYPES[type] ?? '',
      name,
      value: xmlValue(type, data),
    })),
    subkeys: node.subkeys.map(describeAsXml),
  };
}

function xmlValue(type: number, data: Buffer): string {
  const isText = [ValueType.string, ValueType.expandString, ValueType.link].some((one) => one === type);
  if (isText) return data.toString('utf16le').replace(/\0.*/s, '');
  if (type === ValueType.dword) return String(data.readInt32LE());
  if (type === ValueType.dwordBigEndian) return String(data.readInt32BE());
  if (type === ValueType.qword) return String(data.readBigInt64LE());
  return type === ValueType.multiString ? '' : data.toString('base64');
}

/** The little of XML that hivexml prints. */
function parseXml(xml: string): XmlKey | undefined {
  const path: XmlKey[] = [{ name: '', time: '', values: [], subkeys: [] }];
  for (const [, tag = '', attributes = '', content = ''] of xml.matchAll(/<([/a-z]+)([^>]*)>([^<]*)/g)) {
    const top = path.at(-1)!;
    const attribute = (name: string) => new RegExp(` ${name}="([^"]*)"`).exec(attributes)?.[1] ?? '';
    if (tag === 'node') {
      const made: XmlKey = { name: attribute('name'), time: '', values: [], subkeys: [] };
      top.subkeys.push(made);
      path.push(made);
    } else if (tag === '/node') path.pop();
    else if (tag === 'mtime') top.time = content;
    else if (tag === 'value')
      top.values.push({
        type: attribute('type'),
        name: attribute('key'),
        value: attribute('value').replace(/\s/g, (space) => (space === ' ' ? ' ' : '')),
      });
  }
  return path[0]?.subkeys[0];
}
