/** The cached EROFS image of a chain: its identity, and whether a file is that image. */

import { open } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { classify, isErrorCode } from '../../errors.ts';
import type { ChainId } from '../host.ts';
import { viewImageUuid } from '../identity.ts';

export const VIEW_VOLUME_NAME = 'cimlet';

/** Changes whenever the same CIM would give another image. */
const VIEW_BUILDER = 'view/1';

const SUPERBLOCK_OFFSET = 1024;
const MAGIC = 0xe0f5e1e2;
const BLOCK_SIZE = 4096;

/** The image's UUID, derived from what it shows and from who wrote that. */
export function viewUuid(chainId: ChainId, layerBuilder: string): Uint8Array {
  return viewImageUuid(chainId, `${VIEW_BUILDER}/${layerBuilder}`);
}

export function temporaryName(image: string): string {
  return join(dirname(image), `tmp-${basename(image)}`);
}

/** Whether `image` is there, whole, and shows what `uuid` stands for. (Linux fs/erofs/erofs_fs.h, struct erofs_super_block.) */
export async function isViewImage(image: string, uuid: Uint8Array): Promise<boolean> {
  try {
    const handle = await open(image, 'r');
    try {
      const head = Buffer.alloc(SUPERBLOCK_OFFSET + 128);
      const { bytesRead } = await handle.read(head, 0, head.length, 0);
      if (bytesRead < head.length || head.readUInt32LE(SUPERBLOCK_OFFSET) !== MAGIC) return false;
      const blocks = head.readUInt32LE(SUPERBLOCK_OFFSET + 36);
      const { size } = await handle.stat();
      return (
        size === blocks * BLOCK_SIZE &&
        head
          .subarray(SUPERBLOCK_OFFSET + 48)
          .subarray(0, 16)
          .equals(uuid)
      );
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (isErrorCode(classify(error, `read ${image}`), 'not-found')) return false;
    throw classify(error, `read ${image}`);
  }
}
