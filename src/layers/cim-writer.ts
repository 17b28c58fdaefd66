import type { CimStream, DirectoryEntry, FileInfo, FileMetadata } from '../cim/types.ts';

/**
 * What layers need of whatever writes a CIM. Paths are relative, separated by `/`, and compare without case.
 * Calls come one at a time; a stream is closed before the next call.
 */
export interface LayerWriter {
  /**
   * Creates a file or (attribute `directory`) a directory and returns the stream for exactly `metadata.size` bytes. Replaces a file that is
   * there (its other hard links keep the old content); a directory that is there keeps its children and takes the
   * new metadata. The parent directory must exist.
   */
  createFile(path: string, metadata: FileMetadata): CimStream;
  /** Adds an alternate data stream (its name without `:$DATA`) to a file or directory. */
  createAlternateStream(path: string, name: string, size: number): CimStream;
  createHardLink(path: string, existing: string): void;
}

/** Writes a forked CIM, which begins as its parent's. `src/cim/writer.ts` satisfies it. */
export interface CimWriter extends LayerWriter {
  /** Deletes a path and all below it; false when there is nothing. */
  deletePath(path: string): boolean;
  /** What is at a path now, what the image was forked from included. */
  stat(path: string): FileInfo | undefined;
  /** Children of a directory, those the image was forked from included. */
  entries(path: string): DirectoryEntry[];
}

/** Writes a block CIM, which holds one layer's own files and says what a merge does to those below. */
export interface BlockCimWriter extends LayerWriter {
  /** Makes `path` another name of the file that the layers below have at `target`, once they are merged. */
  createMergeLink(path: string, target: string): void;
  /** Says that what the layers below have at `path`, and below it, is gone. */
  tombstone(path: string): void;
}
