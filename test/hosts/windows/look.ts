/** What a Windows process sees of files that it made, through the bindings and through Node. Prints JSON. */

import { linkSync, lstatSync, mkdirSync, writeFileSync } from 'node:fs';
import { MountedLayers } from '../../../src/hosts/windows/mounted-layers.ts';
import { Dlls } from '../../../src/native/windows/dll.ts';
import { fileFacts } from '../../../src/native/windows/file-info.ts';

const facts = fileFacts(new Dlls());
mkdirSync('C:\\looked\\directory', { recursive: true });
writeFileSync('C:\\looked\\file.txt', 'twelve bytes');
writeFileSync('C:\\looked\\one', 'two names');
linkSync('C:\\looked\\one', 'C:\\looked\\two');
const layers = new MountedLayers('C:\\looked\\', facts);

/** FILETIMEs count from 1601. */
const toNanoseconds = (filetime: bigint) => (filetime - 116_444_736_000_000_000n) * 100n;

const seen = ['file.txt', 'directory'].map((name) => {
  const info = layers.stat(name);
  const node = lstatSync(`C:\\looked\\${name}`, { bigint: true });
  if (info === undefined) throw new Error(`no ${name}`);
  const times = [info.lastWriteTime, info.changeTime].map(toNanoseconds);
  const theirs = [node.mtimeNs, node.ctimeNs];
  return {
    name,
    isDirectory: info.isDirectory,
    directoryBit: (info.attributes & 0x10) !== 0,
    reparseTag: info.reparseTag,
    size: info.size,
    sameTimes: times.every((time, index) => time === theirs[index]),
    descriptor: Buffer.from(info.securityDescriptor ?? []).toString('hex', 0, 4),
    streams: layers.streams(name),
  };
});
console.log(
  JSON.stringify({
    seen,
    absent: [
      layers.stat('none') ?? null,
      layers.stat('none/below') ?? null,
      layers.stat('file.txt/below') ?? null,
    ],
    entries: layers.entries('').map(({ name }) => name),
    noEntries: [...layers.entries('none'), ...layers.entries('file.txt')],
    content: Buffer.concat([...layers.read('file.txt')]).toString(),
    names: {
      same: layers.identity('one') !== undefined && layers.identity('one') === layers.identity('two'),
      single: layers.identity('file.txt') ?? null,
      directory: layers.identity('directory') ?? null,
    },
    extendedAttributes: layers.stat('file.txt')?.extendedAttributes ?? null,
  }),
);
