/** Commits of Linux snapshots in a Windows process, after linux-scratch.ts and what a guest has written meanwhile. Prints `done`. */

import assert from 'node:assert/strict';
import { copyFile, open, readFile } from 'node:fs/promises';
import type { ChainId } from '../../../src/hosts/host.ts';
import { hexOf, snapshotGuid } from '../../../src/hosts/identity.ts';
import { createWindowsHost } from '../../../src/hosts/windows/windows-host.ts';
import { context, look, rejects } from '../../conformance/host.ts';

const host = createWindowsHost({ root: 'C:\\store' });
const diskOf = (key: string) => `C:\\store\\snapshots\\${snapshotGuid(key)}\\sandbox.vhdx`;

// A disk that something still writes to is left alone.
await copyFile(diskOf('small'), 'C:\\kept.vhdx');
const file = await open(diskOf('small'), 'r+');
try {
  // The file system says that its journal is in use.
  await markUnclean();
} finally {
  await file.close();
}
await rejects(host.exportSnapshot('small', 'C:\\x.tar', context), 'failed-precondition', /journal/);
await copyFile('C:\\kept.vhdx', diskOf('small'));

const diffId = await host.exportSnapshot('small', 'C:\\blobs\\small.tar', context);
const { chain } = (await look(host)).snapshots.find(({ key }) => key === 'small') ?? { chain: [] };
const layer = await host.commitSnapshot('small', {}, context);
assert.deepEqual([layer.format, layer.diffId, layer.parent], ['LCOW', diffId, chain.at(-1)]);
await host.exportLayer(layer, 'C:\\blobs\\committed.tar', context);

// A guest makes the file system of a scratch that had none.
await rejects(
  host.exportSnapshot('bare', 'C:\\x.tar', context),
  'failed-precondition',
  /no file system .* yet/,
);
await copyFile('C:\\formatted', diskOf('bare'));
await host.exportSnapshot('bare', 'C:\\blobs\\bare.tar', context);
assert.match(await readFile('C:\\blobs\\bare.tar', 'latin1'), /formatted\//);

// A sealed layer is exported as it was sealed only. No file system looks at the disk's first bytes.
const base = { chainId: chain[0] as ChainId, format: 'LCOW' as const };
const disk = `C:\\store\\snapshots\\${hexOf(base.chainId)}.lcow\\layer.vhd`;
const flip = async (byte: string) => {
  const opened = await open(disk, 'r+');
  await opened.write(byte, 0);
  await opened.close();
};
await flip('x');
await rejects(host.exportLayer(base, 'C:\\x.tar', context), 'corrupt', /dm-verity/);
await flip('\0');
await host.exportLayer(base, 'C:\\blobs\\base.tar', context);

// Nothing was written: a layer that changes nothing.
const empty = await host.commitSnapshot('elsewhere', {}, context);
assert.equal(empty.parent, chain.at(-1));
const { snapshots, leftovers } = await look(host);
assert.deepEqual([snapshots.map(({ key }) => key), leftovers], [['bare', 'shared', 'usual'], []]);
console.log('done');

/** Sets `needs_recovery` in the superblock, which is in the first block that the disk's file holds. */
async function markUnclean(): Promise<void> {
  const { size } = await file.stat();
  const chunk = Buffer.alloc(4096);
  for (let at = 2 ** 20; at < size; at += 2 ** 20) {
    await file.read(chunk, 0, chunk.length, at);
    if (chunk.readUInt16LE(1024 + 0x38) !== 0xef53) continue;
    chunk.writeUInt32LE(chunk.readUInt32LE(1024 + 0x60) | 4, 1024 + 0x60);
    await file.write(chunk, 0, chunk.length, at);
    return;
  }
  assert.fail('no superblock');
}
