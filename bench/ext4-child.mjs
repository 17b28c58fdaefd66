/** Converts one layer tar into an ext4 image, with dm-verity if told; prints seconds, by the clock and of the CPU. Arguments: built modules, tar, image, `verity`. */

import { statSync } from 'node:fs';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';

// As bin/cimlet.cjs does.
setFlagsFromString('--semi-space-growth-factor=1');

const [modules = '', tar = '', image = '', verity] = process.argv.slice(2);
const load = (name) => import(join(modules, name));
const { Ext4Writer } = await load('ext4/writer.js');
const { DiskVerity } = await load('hosts/disk-verity.js');
const { decodeFile } = await load('images/decode.js');
const { importLinuxLayer } = await load('layers/linux-layer.js');

const start = performance.now();
const before = process.cpuUsage();
const { signal } = new AbortController();
const tree = verity === undefined ? undefined : new DiskVerity(image, signal);
const writer = new Ext4Writer(image, { onWritten: tree?.onWritten });
let size = 0;
let inodes = 0;
try {
  const chunks = decodeFile({ file: tar, size: statSync(tar).size }, 'read', signal, () => undefined);
  await importLinuxLayer(chunks, writer);
  ({ size, inodes } = writer.finish());
  await tree?.finish(size);
} finally {
  writer.close();
  await tree?.close();
}
const seconds = (performance.now() - start) / 1000;
const { user, system } = process.cpuUsage(before);
console.log(JSON.stringify({ seconds, cpu: (user + system) / 1e6, size, inodes }));
