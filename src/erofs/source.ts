/** What the EROFS writer is given: a tree of inodes by key, and the external devices that hold their data. */

/** Seconds and nanoseconds since 1970-01-01 UTC; seconds may be negative. */
export interface ErofsTime {
  seconds: bigint;
  nanoseconds: number;
}

/** An external data device: a file or block device handed to the kernel at mount time, in this order. */
export interface ErofsDevice {
  /** Bytes, a multiple of 4,096. */
  size: number;
}

export interface ErofsXattr {
  /** With its namespace: `user.`, `trusted.` or `security.`, then 1 to 255 bytes. */
  name: string;
  /** At most 65,535 bytes. */
  value: Uint8Array;
}

/**
 * Where a file's bytes are. `device`: in one run of an external device, at a multiple of 4,096, and the rest of its
 * last 4,096 bytes exists too. `hole`: all zeros, taking no space. `bytes`: copied into the image; `read` is called
 * once and must yield exactly the inode's `size`.
 */
export type ErofsData =
  | { kind: 'device'; device: number; offset: number }
  | { kind: 'hole' }
  | { kind: 'bytes'; read(): Uint8Array | Iterable<Uint8Array> };

interface InodeCommon {
  /** Permission bits (0o7777). */
  mode: number;
  uid: number;
  gid: number;
  mtime: ErofsTime;
  xattrs: readonly ErofsXattr[];
}

export type ErofsInode =
  | (InodeCommon & { type: 'directory' })
  | (InodeCommon & { type: 'file'; size: number; data: ErofsData })
  /** `target`: 1 to 4,095 bytes. Linux lets no one read `user.` attributes of a symlink; use `trusted.` there. */
  | (InodeCommon & { type: 'symlink'; target: Uint8Array });

export interface ErofsEntry {
  /** 1 to 255 bytes, without `/` and NUL, not `.` or `..`. */
  name: Uint8Array;
  key: number;
}

/**
 * A tree to write. Every method is called at most twice for a key and must answer the same both times. Two entries
 * with one key are hard links of one inode; a directory has exactly one entry.
 */
export interface ErofsSource {
  /** The root directory's key. */
  root: number;
  inode(key: number): ErofsInode;
  /** A directory's children in any order. */
  entries(key: number): Iterable<ErofsEntry>;
  devices: readonly ErofsDevice[];
  /** 16 bytes. */
  uuid: Uint8Array;
  buildTime: ErofsTime;
  /** At most 15 bytes of UTF-8. */
  volumeName?: string;
}
