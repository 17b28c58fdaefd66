/** Imports one layer tar into a durable block CIM, sealed if told; prints the seconds of both. Arguments: tar, container, `sealed`. */

import { createReadStream } from 'node:fs';
import { createBlockCimWriter } from '../src/cim/block-writer.ts';
import { publishContainer } from '../src/cim/publish.ts';
import { sealContainer } from '../src/cim/seal.ts';
import { importBlockLayer } from '../src/layers/import-layer.ts';

const [tar = '', file = '', sealed] = process.argv.slice(2);
const secondsSince = (start: number): number => (performance.now() - start) / 1000;

const start = performance.now();
const writer = createBlockCimWriter({
  file,
  name: 'layer',
  regionGuid: '6f1c2f0e-5d6d-5c39-8f6b-0d0f5c9a1b12',
});
let files: number;
try {
  const input = createReadStream(tar, { highWaterMark: 256 * 1024 });
  const result = await importBlockLayer(input, writer, { lower: undefined });
  writer.finish();
  files = result.files;
} finally {
  writer.close();
}
publishContainer(file);
const imported = secondsSince(start);
if (sealed !== undefined) await sealContainer(file);
console.log(JSON.stringify({ files, imported, total: secondsSince(start) }));
