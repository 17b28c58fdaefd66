import { type FileHandle, open, rm } from 'node:fs/promises';
import { CimletError, classify } from '../errors.ts';
import { encodeDirectory, sortEntries } from './directory.ts';
import {
  alignUp,
  BLOCK_SIZE,
  CHUNK_INDEX_SIZE,
  chunkFormat,
  encodeChunkIndexes,
  encodeHead,
  encodeInode,
  type HeadFields,
  type InodeFields,
  Layout,
  SLOT_SIZE,
} from './format.ts';
import { SequentialWriter } from './sequential-writer.ts';
import type { ErofsInode, ErofsSource } from './source.ts';
import { inlineTail, type Survey, type SurveyedInode, survey, turn } from './survey.ts';
import { encodeXattr, encodeXattrArea } from './xattrs.ts';

const INODES_PER_TURN = 512;
const BYTES_PER_TURN = 8 * 1024 * 1024;

export interface WrittenErofs {
  /** The image's size, a multiple of 4,096. */
  bytes: number;
  inodes: number;
}

export interface WriteErofsOptions {
  signal?: AbortSignal | undefined;
  /** Called after each inode. */
  onInode?: ((done: number, total: number) => void) | undefined;
}

/**
 * Writes an EROFS image of `source` to a new file at `path` and makes it durable (the name isn't: rename it, then sync
 * the directory). The same source gives the same bytes. The kernel mounts it with the source's devices in order.
 *
 * Throws `already-exists` when there is a file at `path`, `corrupt` for a tree EROFS can't show, `cancelled`, and
 * file-system errors; the file is then removed.
 */
export async function writeErofs(
  source: ErofsSource,
  path: string,
  { signal, onInode }: WriteErofsOptions = {},
): Promise<WrittenErofs> {
  const operation = `write EROFS image ${path}`;
  let file: FileHandle;
  try {
    file = await open(path, 'wx');
  } catch (error) {
    throw classify(error, operation);
  }
  let complete = false;
  try {
    const plan = await survey(source, signal);
    await writeContents(source, plan, file.fd, signal, onInode);
    await file.sync();
    complete = true;
    return { bytes: plan.blocks * BLOCK_SIZE, inodes: plan.inodes.size };
  } catch (error) {
    throw classify(error, operation);
  } finally {
    await file.close();
    if (!complete) await rm(path, { force: true });
  }
}

async function writeContents(
  source: ErofsSource,
  plan: Survey,
  fd: number,
  signal: AbortSignal | undefined,
  onInode: WriteErofsOptions['onInode'],
): Promise<void> {
  const shared = new SequentialWriter(fd, plan.xattrBlock * BLOCK_SIZE);
  const meta = new SequentialWriter(fd, plan.metaBlock * BLOCK_SIZE);
  const data = new SequentialWriter(fd, plan.dataBlock * BLOCK_SIZE);
  const sharedStart = shared.position;
  const metaStart = meta.position;

  let done = 0;
  for (const record of plan.inodes.values()) {
    if (done % INODES_PER_TURN === 0) await turn(signal);
    const inode = source.inode(record.key);
    if (!isAsSurveyed(inode, record))
      throw new Error(`EROFS source changed inode ${record.key} between passes`);
    for (const [index, xattr] of inode.xattrs.entries()) {
      // Places were given in this very order, so a shared attribute is written where it is first met.
      if (record.xattrs[index]?.sharedAt === shared.position - sharedStart) shared.write(encodeXattr(xattr));
    }
    meta.zeroUntil(metaStart + record.nid * SLOT_SIZE);
    meta.write(encodeInode(fieldsOf(inode, record, done + 1)));
    if (record.xattrBytes > 0) meta.write(encodeXattrArea(record.xattrs, inode.xattrs));
    if (record.layout === Layout.chunks) {
      meta.zeroUntil(alignUp(meta.position, CHUNK_INDEX_SIZE));
      meta.write(encodeChunkIndexes(record.size, deviceRun(inode)));
    } else {
      await writeBytes(contents(source, plan, inode, record), record, { data, meta, signal });
    }
    done++;
    onInode?.(done, plan.inodes.size);
  }

  const end = plan.blocks * BLOCK_SIZE;
  if (data.position !== end) throw new Error(`EROFS image ends at ${data.position}, planned ${end}`);
  shared.zeroUntil(metaStart);
  meta.zeroUntil(plan.dataBlock * BLOCK_SIZE);
  for (const part of [shared, meta, data]) part.flush();
  const head = new SequentialWriter(fd, 0);
  head.write(encodeHead(headOf(source, plan)));
  head.flush();
}

/** Whole blocks go to the data area, an inline tail behind the inode. */
async function writeBytes(
  chunks: Iterable<Uint8Array>,
  record: SurveyedInode,
  to: { data: SequentialWriter; meta: SequentialWriter; signal: AbortSignal | undefined },
): Promise<void> {
  const tailAt = record.size - inlineTail(record);
  let done = 0;
  let sinceTurn = 0;
  for (const chunk of chunks) {
    if (done + chunk.length > record.size) throw wrongSize(record, done + chunk.length);
    const whole = Math.max(0, Math.min(chunk.length, tailAt - done));
    to.data.write(chunk.subarray(0, whole));
    to.meta.write(chunk.subarray(whole));
    done += chunk.length;
    sinceTurn += chunk.length;
    if (sinceTurn >= BYTES_PER_TURN) {
      sinceTurn = 0;
      await turn(to.signal);
    }
  }
  if (done !== record.size) throw wrongSize(record, done);
  to.data.zeroUntil(alignUp(to.data.position, BLOCK_SIZE));
}

function contents(
  source: ErofsSource,
  plan: Survey,
  inode: ErofsInode,
  record: SurveyedInode,
): Iterable<Uint8Array> {
  if (inode.type === 'symlink') return [inode.target];
  if (inode.type === 'directory') {
    const children = sortEntries(source.entries(record.key), { self: record.key, parent: record.parent });
    return encodeDirectory(children, (key) => {
      const child = plan.inodes.get(key);
      if (child === undefined) throw new Error(`EROFS source added inode ${key} between passes`);
      return child;
    });
  }
  if (inode.data.kind !== 'bytes' || inode.size === 0) return [];
  const bytes = inode.data.read();
  return bytes instanceof Uint8Array ? [bytes] : bytes;
}

function isAsSurveyed(inode: ErofsInode, record: SurveyedInode): boolean {
  return (
    inode.type === record.type &&
    inode.xattrs.length === record.xattrs.length &&
    (inode.type !== 'file' || inode.size === record.size)
  );
}

function fieldsOf(inode: ErofsInode, record: SurveyedInode, number: number): InodeFields {
  const { type, layout, xattrBytes, size, nlink } = record;
  const { mode, uid, gid, mtime } = inode;
  const location = layout === Layout.chunks ? chunkFormat(size) : record.block;
  return { type, layout, xattrBytes, mode, size, location, number, uid, gid, mtime, nlink };
}

function deviceRun(inode: ErofsInode): { device: number; block: number } | undefined {
  if (inode.type !== 'file' || inode.data.kind !== 'device') return undefined;
  // Device 0 is the image itself.
  return { device: inode.data.device + 1, block: inode.data.offset / BLOCK_SIZE };
}

function headOf(source: ErofsSource, plan: Survey): HeadFields {
  return {
    rootNid: plan.inodes.get(source.root)?.nid ?? 0,
    inodes: plan.inodes.size,
    blocks: plan.blocks,
    metaBlock: plan.metaBlock,
    xattrBlock: plan.xattrBlock,
    uuid: source.uuid,
    buildTime: source.buildTime,
    volumeName: Buffer.from(source.volumeName ?? ''),
    devices: source.devices,
  };
}

function wrongSize(record: SurveyedInode, actual: number): CimletError {
  return new CimletError(
    'corrupt',
    `write EROFS file ${record.key}: its contents have ${actual} bytes or more, not ${record.size}`,
  );
}
