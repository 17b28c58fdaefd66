/** Seals: what the root hash is, what breaks it, and what reading through it refuses. */

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createBlockCimWriter } from '../../src/cim/block-writer.ts';
import { inspectCim } from '../../src/cim/inspect.ts';
import { openCim } from '../../src/cim/reader.ts';
import { sealContainer, verifySeal } from '../../src/cim/seal.ts';
import { verifyCim } from '../../src/cim/verify.ts';
import { addVhdFooter, readVhdFooter } from '../../src/cim/vhd-footer.ts';
import { hasTool, isRoot, requireOrSkip } from '../support/requirements.ts';
import { containerOf, finishBlock, guidOf, listCim, withCim, writeBlock } from './block-fixture.ts';
import { patternBytes, putDirectory, putFile, temporaryDirectories } from './fixture.ts';

const temporary = temporaryDirectories();
const LARGE = patternBytes(700_000, 1);

function writeSample(directory: string): string {
  return writeBlock(directory, 1, (writer) => {
    putDirectory(writer, 'dir');
    putFile(writer, 'dir/large', LARGE);
    putFile(writer, 'dir/small', 'small');
  });
}

async function writeSealed(directory: string) {
  const path = writeSample(directory);
  const file = containerOf(path);
  const plain = readFileSync(file);
  const { rootHash } = await sealContainer(file);
  return { path, file, plain, rootHash };
}

const sha256 = (...data: Buffer[]) => createHash('sha256').update(Buffer.concat(data)).digest();

/** The tree as its description says, computed anew: the levels' pages, leaves first, and the root. */
function treeOf(content: Buffer): { levels: Buffer[]; root: Buffer } {
  const levels: Buffer[] = [];
  for (let below = content; ; below = levels.at(-1)!) {
    const digests: Buffer[] = [];
    for (let at = 0; at < below.length; at += 4096) digests.push(sha256(below.subarray(at, at + 4096)));
    if (levels.length > 0 && digests.length === 1) return { levels, root: digests[0]! };
    const size = Math.ceil((digests.length * 32) / 4096) * 4096;
    levels.push(Buffer.concat([...digests, Buffer.alloc(size - digests.length * 32)]));
  }
}

describe('a seal', () => {
  it('is a Merkle tree behind the content, whose root hash also stands for length and header', async () => {
    const { file, plain, rootHash } = await writeSealed(temporary());
    const sealed = readFileSync(file);
    expect(sealed.subarray(0, plain.length).equals(plain)).toBe(true);
    const { levels, root } = treeOf(plain);
    expect(levels.length).toBe(2);
    const page = sealed.subarray(plain.length, plain.length + 4096);
    expect(sealed.subarray(plain.length + 4096).equals(Buffer.concat(levels))).toBe(true);
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(plain.length));
    expect(rootHash).toBe(`sha256:${sha256(root, length, sha256(plain.subarray(0, 4096))).toString('hex')}`);
    expect(page.toString('latin1', 0, 8)).toBe('cimletsl');
    expect(page.readBigUInt64LE(16)).toBe(BigInt(plain.length));
    expect(page.subarray(24, 56)).toEqual(sha256(plain.subarray(0, 4096)));
    expect(page.subarray(56, 88)).toEqual(root);
    expect(`sha256:${page.toString('hex', 88, 120)}`).toBe(rootHash);
    expect(page.subarray(4064)).toEqual(sha256(page.subarray(0, 4064)));
  });

  it('is the same each time, also after a seal that was cut off, and is shown', async () => {
    const { path, file, plain, rootHash } = await writeSealed(temporary());
    const sealed = readFileSync(file);
    expect(await sealContainer(file)).toEqual({ rootHash });
    expect(await verifySeal(file, { expected: rootHash })).toEqual([]);
    expect(verifyCim(path)).toEqual([]);
    expect(inspectCim(path).container).toMatchObject({ rootHash, cims: ['layer.cim'], size: plain.length });
    writeFileSync(
      file,
      Buffer.concat([plain, Buffer.alloc(4096), sealed.subarray(plain.length + 4096, -4096)]),
    );
    expect(await verifySeal(file)).toMatchObject([{ message: 'the container is not sealed' }]);
    expect(await sealContainer(file)).toEqual({ rootHash });
    expect(readFileSync(file).equals(sealed)).toBe(true);
  });

  it('lets everything be read, with the right root hash only', async () => {
    const { path, rootHash } = await writeSealed(temporary());
    const reader = openCim(path, { rootHash });
    expect(listCim(reader)).toEqual({
      dir: '/',
      'dir/large': LARGE.toString('latin1'),
      'dir/small': 'small',
    });
    const odd = Buffer.alloc(10_000);
    reader.readStream(reader.lookup('dir/large')!, undefined, odd, 4001);
    expect(odd.equals(LARGE.subarray(4001, 14_001))).toBe(true);
    reader.close();
    expect(() => openCim(path, { rootHash: `sha256:${'0'.repeat(64)}` })).toThrow(
      `its root hash is ${rootHash}`,
    );
    expect(() => openCim(writeSample(temporary()), { rootHash })).toThrow('it is not sealed');
  });

  it('is broken by a flipped bit anywhere', async () => {
    const { path, file, rootHash } = await writeSealed(temporary());
    const sealed = readFileSync(file);
    const unseen: number[] = [];
    for (let at = 0; at < sealed.length; at += 12_007) {
      const damaged = Buffer.from(sealed);
      damaged[at]! ^= 1 << (at % 8);
      writeFileSync(file, damaged);
      const faults = await verifySeal(file, { expected: rootHash });
      const near = faults.some(({ offset }) => Math.floor(offset / 4096) === Math.floor(at / 4096));
      if (!near || verifyCim(path).length === 0) unseen.push(at);
    }
    expect(unseen).toEqual([]);
  });

  it('refuses a changed file when it is read, and lets the others be read', async () => {
    const { path, file } = await writeSealed(temporary());
    const sealed = readFileSync(file);
    sealed[sealed.indexOf(LARGE.subarray(0, 4096)) + 300_000]! ^= 1;
    writeFileSync(file, sealed);
    withCim(path, (reader) => {
      const large = reader.lookup('dir/large')!;
      expect(() => [...reader.streamChunks(large)]).toThrow('the seal is broken');
      const around = Buffer.alloc(100_000);
      expect(() => reader.readStream(large, undefined, around, 250_000)).toThrow('the seal is broken');
      const changed = Math.floor(300_000 / 4096) * 4096 - 250_000;
      expect(around.subarray(0, changed).equals(LARGE.subarray(250_000, 250_000 + changed))).toBe(true);
      expect(around.subarray(changed).every((byte) => byte === 0)).toBe(true);
      const chunk = Buffer.alloc(5000);
      expect(reader.readStream(large, undefined, chunk, 100)).toBe(5000);
      expect(chunk.equals(LARGE.subarray(100, 5100))).toBe(true);
      expect(Buffer.concat([...reader.streamChunks(reader.lookup('dir/small')!)]).toString()).toBe('small');
    });
    await expect(sealContainer(file)).rejects.toMatchObject({ code: 'corrupt' });
  });

  it('is no help when it is replaced along with the content: the root hash is then another', async () => {
    const { path, file, plain, rootHash } = await writeSealed(temporary());
    // A forger who gets every digest of the container right: small data, and the directory's and header's digests.
    const forged = writeBlock(temporary(), 1, (writer) => {
      putDirectory(writer, 'dir');
      putFile(writer, 'dir/large', LARGE);
      putFile(writer, 'dir/small', 'SMALL');
    });
    await sealContainer(containerOf(forged));
    copyFileSync(containerOf(forged), file);
    expect(statSync(file).size).toBeGreaterThan(plain.length);
    expect(await verifySeal(file)).toEqual([]);
    expect(await verifySeal(file, { expected: rootHash })).toHaveLength(1);
    expect(() => openCim(path, { rootHash })).toThrow(expect.objectContaining({ code: 'corrupt' }));
  });

  it('is missed when the container is cut anywhere', async () => {
    const { path, file } = await writeSealed(temporary());
    for (let size = statSync(file).size - 1; size > 0; size -= 70_001) {
      truncateSync(file, size);
      expect(await verifySeal(file)).not.toEqual([]);
      expect(verifyCim(path)).not.toEqual([]);
    }
  });

  it('stops when it is told to, leaving no seal', async () => {
    const file = containerOf(writeSample(temporary()));
    const signal = AbortSignal.abort();
    await expect(sealContainer(file, { signal })).rejects.toMatchObject({ code: 'cancelled' });
    expect(await verifySeal(file)).toMatchObject([{ message: 'the container is not sealed' }]);
    await sealContainer(file);
    await expect(verifySeal(file, { signal })).rejects.toMatchObject({ code: 'cancelled' });
  });

  it('closes a container: nothing can be added', async () => {
    const { file } = await writeSealed(temporary());
    const append = { file, name: 'b', regionGuid: guidOf(2), append: true };
    expect(() => createBlockCimWriter(append)).toThrow('it is sealed already');
  });
});

const canLoop = requireOrSkip('root and losetup', isRoot && hasTool('losetup'));

describe.runIf(canLoop)('a sealed block device', () => {
  it('has the root hash a file has, and is unsealed by a new container', async () => {
    const directory = temporary();
    const { rootHash } = await writeSealed(directory);
    const image = join(directory, 'disk');
    writeFileSync(image, Buffer.alloc(4 * 1024 * 1024));
    const device = execFileSync('losetup', ['-f', '--show', image], { encoding: 'utf8' }).trim();
    try {
      const write = (small: string) =>
        finishBlock(createBlockCimWriter({ device, name: 'layer', regionGuid: guidOf(1) }), (writer) => {
          putDirectory(writer, 'dir');
          putFile(writer, 'dir/large', LARGE);
          putFile(writer, 'dir/small', small);
        });
      write('small');
      expect(await sealContainer(device)).toEqual({ rootHash });
      expect([await verifySeal(device), verifyCim(join(device, 'layer.cim'))]).toEqual([[], []]);
      expect(() => addVhdFooter(device)).toThrow('it is a block device');
      write('other');
      expect(await verifySeal(device)).toMatchObject([{ message: 'the container is not sealed' }]);
    } finally {
      execFileSync('losetup', ['-d', device]);
    }
  });
});

const canAskQemu = requireOrSkip('qemu-img', hasTool('qemu-img'));

describe('a VHD footer', () => {
  it.runIf(canAskQemu).each([true, false])('makes qemu see the disk (sealed: %s)', async (sealed) => {
    const path = writeSample(temporary());
    const file = containerOf(path);
    if (sealed) await sealContainer(file);
    const { size } = statSync(file);
    const footer = addVhdFooter(file);
    expect(addVhdFooter(file)).toEqual(footer);
    expect(statSync(file).size).toBe(size + 512);
    const info = JSON.parse(
      execFileSync('qemu-img', ['info', '-f', 'vpc', '--output=json', file], { encoding: 'utf8' }),
    );
    expect(info).toMatchObject({ format: 'vpc', 'virtual-size': size });
    const raw = join(temporary(), 'raw');
    execFileSync('qemu-img', ['convert', '-f', 'vpc', '-O', 'raw', file, raw]);
    expect(readFileSync(raw).equals(readFileSync(file).subarray(0, size))).toBe(true);
  });

  it('stays out of the way of reading, verifying and inspecting', async () => {
    const { path, file, rootHash } = await writeSealed(temporary());
    const footer = addVhdFooter(file);
    expect(footer.uniqueId).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(withCim(path, listCim)).toHaveProperty(['dir/small'], 'small');
    expect([verifyCim(path), await verifySeal(file, { expected: rootHash })]).toEqual([[], []]);
    expect(inspectCim(path).container).toMatchObject({ rootHash, vhdFooter: footer });
  });

  it('is written byte by byte as the specification says, and derived', async () => {
    const [a, b] = [await writeSealed(temporary()), await writeSealed(temporary())];
    for (const { file } of [a, b]) addVhdFooter(file);
    const bytes = readFileSync(a.file).subarray(-512);
    expect(readFileSync(b.file).subarray(-512)).toEqual(bytes);
    expect(bytes.toString('latin1', 0, 8)).toBe('conectix');
    expect([bytes.readUInt32BE(8), bytes.readUInt32BE(12), bytes.readUInt32BE(24)]).toEqual([2, 0x10000, 0]);
    expect(bytes.toString('hex', 16, 24)).toBe('ffffffffffffffff');
    expect(bytes.toString('latin1', 28, 32)).toBe('win ');
    expect(bytes.readUInt32BE(60)).toBe(2);
    let sum = 0;
    for (const [i, byte] of bytes.entries()) if (i < 64 || i >= 68) sum += byte;
    expect(bytes.readUInt32BE(64)).toBe(0xffffffff - sum);
  });

  it('is found out when any bit of it is flipped, or it is cut', async () => {
    const { path, file } = await writeSealed(temporary());
    addVhdFooter(file);
    const whole = readFileSync(file);
    const start = whole.length - 512;
    for (let at = start; at < whole.length; at++) {
      const damaged = Buffer.from(whole);
      damaged[at]! ^= 1 << (at % 8);
      writeFileSync(file, damaged);
      expect(() => readVhdFooter(file)).toThrow(expect.objectContaining({ code: 'corrupt' }));
    }
    expect(verifyCim(path)).not.toEqual([]);
    expect(await verifySeal(file)).not.toEqual([]);
    writeFileSync(file, whole.subarray(0, -100));
    expect(() => readVhdFooter(file)).toThrow('whole VHD footer');
  });

  it('is refused behind what a seal left that was cut off', async () => {
    const { file, plain } = await writeSealed(temporary());
    const tree = readFileSync(file).subarray(plain.length + 4096);
    writeFileSync(file, Buffer.concat([plain, Buffer.alloc(4096), tree]));
    expect(() => addVhdFooter(file)).toThrow(/there are \d+ bytes where the container ends/);
    expect(readVhdFooter(file)).toBeUndefined();
  });

  it('closes a container: nothing can be added, and it cannot be sealed', async () => {
    const file = containerOf(writeSample(temporary()));
    addVhdFooter(file);
    await expect(sealContainer(file)).rejects.toThrow('it has a VHD footer already');
    const append = { file, name: 'b', regionGuid: guidOf(2), append: true };
    expect(() => createBlockCimWriter(append)).toThrow('it is a VHD already');
  });
});
