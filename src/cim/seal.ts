/** Seals containers and verifies seals. The tree and its layout are in merkle.ts; reading through a seal is in sealed-source.ts. */

import { closeSync, fsync, ftruncate, openSync, read, statSync } from 'node:fs';
import { promisify } from 'node:util';
import { CimletError, classify } from '../errors.ts';
import { FileSource, readPage } from './byte-source.ts';
import { type Container, openContainer } from './container.ts';
import { decodeContainerHeader, SHA256_SIZE } from './container-format.ts';
import { writeFully } from './durable-files.ts';
import { attempt, type CimFault, corruptAt, FaultList, faultOf } from './faults.ts';
import { PAGE_SIZE } from './format.ts';
import {
  createSeal,
  DIGESTS_PER_PAGE,
  decodeSealPage,
  digestBlock,
  encodeSealPage,
  type Seal,
  type TreeLevel,
  treeGeometry,
} from './merkle.ts';
import { readSourceList } from './open-image.ts';
import { readVhdFooter } from './vhd-footer.ts';

const CHUNK = 4 * 1024 * 1024;
const readAsync = promisify(read);
const truncateAsync = promisify(ftruncate);
const syncAsync = promisify(fsync);

/**
 * Seals a container file or device in place and makes it durable: afterwards its root hash stands for every byte of it. Sealing it again
 * verifies it instead. Until the end there is no seal. Errors: `failed-precondition` for a merged CIM whose sources aren't sealed and for a VHD,
 * `corrupt` for a broken seal, `cancelled`.
 */
export async function sealContainer(
  path: string,
  { signal }: { signal?: AbortSignal | undefined } = {},
): Promise<{ rootHash: string }> {
  const container = openContainer(path);
  try {
    if (container.seal !== undefined) return await confirmSeal(path, container.seal, signal);
    refuseUnsealable(container);
  } finally {
    container.close();
  }
  const descriptor = attempt(`seal ${path}`, () => openSync(path, 'r+'));
  try {
    const { end } = container.header;
    if (container.kind === 'file') await truncateAsync(descriptor, end);
    const tree = new TreeBuilder(treeGeometry(end).levels, (page, position) =>
      writeFully(descriptor, page, position),
    );
    await eachBlock({ path, descriptor }, 0, end, signal, (block) => tree.add(block));
    const seal = createSeal(end, container.headerPage, tree.finish());
    await syncAsync(descriptor);
    writeFully(descriptor, encodeSealPage(seal), end);
    await syncAsync(descriptor);
    return { rootHash: seal.rootHash };
  } catch (error) {
    throw classify(error, `seal ${path}`);
  } finally {
    closeSync(descriptor);
  }
}

async function confirmSeal(path: string, seal: Seal, signal: AbortSignal | undefined) {
  const [fault] = await verifySeal(path, { expected: seal.rootHash, signal });
  if (fault !== undefined) throw corruptAt(fault.file, fault.offset, fault.message);
  return { rootHash: seal.rootHash };
}

function refuseUnsealable(container: Container): void {
  const { path, directory, kind } = container;
  const refuse = (message: string, hint: string) =>
    new CimletError('failed-precondition', `seal ${path}: ${message}`, { hint });
  if (kind === 'file' && readVhdFooter(path) !== undefined)
    throw refuse('it has a VHD footer already', 'seal first, then add the footer');
  for (const cim of directory.cims)
    if (readSourceList(container, cim)?.sealed === false)
      throw refuse(`${cim.name} was merged from CIMs that are not sealed`, 'seal them, and merge again');
}

/**
 * Every fault of a container's seal: each block that doesn't have its digest, whichever of the content, the tree, the seal and what follows it
 * is in; none for a sound one. A container without a seal is a fault too, and so is another root hash than `expected`.
 */
export async function verifySeal(
  path: string,
  { expected, signal }: { expected?: string | undefined; signal?: AbortSignal | undefined } = {},
): Promise<CimFault[]> {
  const faults = new FaultList();
  const file = new FileSource(path);
  try {
    const seal = faults.collect(() => readSeal(file));
    if (seal === undefined) return faults.list;
    if (expected !== undefined && seal.rootHash !== expected)
      faults.add({ file: path, offset: seal.sealedLength, message: `the root hash is ${seal.rootHash}` });
    await verifyTree(file, seal, signal, faults);
    faults.collect(() => checkEnd(path, treeGeometry(seal.sealedLength).end));
    return faults.list;
  } catch (error) {
    const fault = faultOf(error);
    if (fault === undefined) throw classify(error, `verify the seal of ${path}`);
    faults.add(fault);
    return faults.list;
  } finally {
    file.close();
  }
}

function readSeal(file: FileSource): Seal {
  const header = readPage(file, 0);
  const { end } = decodeContainerHeader(header, file.path);
  const seal = decodeSealPage(readPage(file, end), header, file.path, end);
  if (seal === undefined) throw corruptAt(file.path, end, 'the container is not sealed');
  return seal;
}

/** Compares each block with its digest in the tree, and each page of the tree with its digest in the level above. */
async function verifyTree(
  file: FileSource,
  seal: Seal,
  signal: AbortSignal | undefined,
  faults: FaultList,
): Promise<void> {
  const { levels } = treeGeometry(seal.sealedLength);
  let below = { offset: 0, pages: seal.sealedLength / PAGE_SIZE };
  for (const above of [...levels, undefined]) {
    let position = below.offset;
    let digests = seal.treeRoot;
    const found = Buffer.alloc(SHA256_SIZE);
    await eachBlock(file, below.offset, below.pages * PAGE_SIZE, signal, (block) => {
      const number = (position - below.offset) / PAGE_SIZE;
      const slot = number % DIGESTS_PER_PAGE;
      if (above !== undefined && slot === 0)
        digests = readPage(file, above.offset + (number / DIGESTS_PER_PAGE) * PAGE_SIZE);
      digestBlock(block, found, 0);
      if (!found.equals(digests.subarray(slot * SHA256_SIZE, (slot + 1) * SHA256_SIZE)))
        faults.add({
          file: file.path,
          offset: position,
          message: 'the seal is broken: a block does not have its digest',
        });
      position += PAGE_SIZE;
    });
    below = above ?? below;
  }
}

/** Behind a seal, or behind content without one, only a VHD footer may follow in a file. */
export function checkEnd(path: string, end: number): void {
  const stats = attempt(`look at ${path}`, () => statSync(path));
  if (stats.isBlockDevice()) return;
  const footer = readVhdFooter(path);
  const behind = footer?.size ?? stats.size;
  if (behind !== end) throw corruptAt(path, end, `there are ${behind - end} bytes where the container ends`);
}

/** Reads ahead while blocks are handed out; a block is good until the next. */
async function eachBlock(
  { path, descriptor }: Pick<FileSource, 'path' | 'descriptor'>,
  start: number,
  length: number,
  signal: AbortSignal | undefined,
  use: (block: Uint8Array) => void,
): Promise<void> {
  const end = start + length;
  const load = async ({ bytes }: Chunk, position: number): Promise<number> => {
    const wanted = Math.max(0, Math.min(CHUNK, end - position));
    let done = 0;
    while (done < wanted) {
      const { bytesRead } = await readAsync(descriptor, bytes, done, wanted - done, position + done);
      if (bytesRead === 0)
        throw corruptAt(path, position + done, 'the container is shorter than it declares');
      done += bytesRead;
    }
    return done;
  };
  let [current, next] = [createChunk(), createChunk()];
  let loading = load(current, start);
  try {
    for (let position = start; position < end; ) {
      const loaded = await loading;
      signal?.throwIfAborted();
      loading = load(next, position + loaded);
      for (const block of current.blocks.slice(0, loaded / PAGE_SIZE)) use(block);
      [current, next] = [next, current];
      position += loaded;
    }
  } finally {
    // The descriptor must not be closed under a read.
    await Promise.allSettled([loading]);
  }
}

/** Made once for all the blocks that are read into it: a view of its own for each would cost as much as a tenth of its digest. */
interface Chunk {
  bytes: Buffer;
  blocks: Uint8Array[];
}

function createChunk(): Chunk {
  const bytes = Buffer.allocUnsafeSlow(CHUNK);
  const blocks = Array.from({ length: CHUNK / PAGE_SIZE }, (_, i) =>
    bytes.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE),
  );
  return { bytes, blocks };
}

/** Builds a tree from blocks in order, a page of each level in memory. */
class TreeBuilder {
  readonly #levels: { page: Buffer; used: number; position: number }[];
  readonly #emit: (page: Buffer, position: number) => void;
  readonly #root = Buffer.alloc(SHA256_SIZE);

  /** `emit` gets each page of the tree when it is complete; it is good until the next. */
  constructor(levels: readonly TreeLevel[], emit: (page: Buffer, position: number) => void) {
    this.#levels = levels.map(({ offset }) => ({ page: Buffer.alloc(PAGE_SIZE), used: 0, position: offset }));
    this.#emit = emit;
  }

  add(block: Uint8Array): void {
    this.#add(block, 0);
  }

  /** Completes the pages that aren't full; returns the tree root. */
  finish(): Buffer {
    for (const [number, level] of this.#levels.entries()) if (level.used > 0) this.#complete(number);
    return this.#root;
  }

  #add(block: Uint8Array, number: number): void {
    const level = this.#levels[number];
    if (level === undefined) {
      digestBlock(block, this.#root, 0);
      return;
    }
    digestBlock(block, level.page, level.used);
    level.used += SHA256_SIZE;
    if (level.used === PAGE_SIZE) this.#complete(number);
  }

  #complete(number: number): void {
    const level = this.#levels[number];
    if (level === undefined) return;
    this.#emit(level.page, level.position);
    this.#add(level.page, number + 1);
    level.page.fill(0);
    level.used = 0;
    level.position += PAGE_SIZE;
  }
}
