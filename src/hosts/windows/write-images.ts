/** Layers and merged CIMs written by Windows. Runs in the job's thread; what is left on failure is the caller's to remove. */

import { closeSync, fstatSync, fsyncSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileSize, readImageHeader, setFileNames } from '../../cim/image.ts';
import { encodeVhdFooter } from '../../cim/vhd-footer.ts';
import { classify } from '../../errors.ts';
import { importBlockLayer, importLayer } from '../../layers/import-layer.ts';
import type { LowerView } from '../../layers/lower-view.ts';
import {
  CimCreateFlag,
  type CimImageHandle,
  CimMergeFlag,
  type CimWriteCalls,
} from '../../native/windows/cim-calls.ts';
import type { CimImagePath } from '../../native/windows/cimfs.ts';
import type { JobControl } from '../job-thread.ts';
import type { StoredFile } from '../records.ts';
import { nameCulprit, openJobTar } from '../unpack-input.ts';
import { afterFailure } from './acquire.ts';
import { sourcePath } from './cim-paths.ts';
import { BlockImageWriter, ForkedImageWriter, type ImageWriter } from './image-writers.ts';
import type { MergeJob, UnpackBlockJob, UnpackForkedJob, WrittenImage } from './jobs.ts';
import { MountedLayers } from './mounted-layers.ts';
import { hiveMerger } from './offline-hives.ts';
import { sealImage } from './seal-image.ts';
import { openWriting, type WritingCalls } from './windows-calls.ts';

/** A disk is whole sectors. */
const SECTOR = 512;

export async function unpackForked(job: UnpackForkedJob, control: JobControl): Promise<WrittenImage> {
  const { directory, image, parent = null } = job;
  const native = openWriting();
  const lower = lowerOf(job, native);
  const written = await writeImage(
    native.calls,
    () => native.calls.createImage(directory, parent, image),
    async (handle) => {
      const writer = new ForkedImageWriter(native.calls, handle, lower);
      const { files, warnings } = await imported(job, writer, () =>
        importLayer(openJobTar(job, control), writer, {
          isBase: lower === undefined,
          lower,
          ...meanwhile(job, native, control),
        }),
      );
      return { files, warnings };
    },
  );
  const { own } = readImageHeader(join(directory, image));
  const cimFiles = storedFiles(directory, [image, ...setFileNames(own)]);
  return { ...written, cimFiles, bytes: totalOf(cimFiles) };
}

export async function unpackBlock(job: UnpackBlockJob, control: JobControl): Promise<WrittenImage> {
  const { image } = job;
  const native = openWriting();
  const lower = lowerOf(job, native);
  const written = await writeImage(
    native.calls,
    () => createBlock(native.calls, image, job.seal),
    async (handle) => {
      const writer = new BlockImageWriter(native.calls, handle);
      const { files, warnings } = await imported(job, writer, () =>
        importBlockLayer(openJobTar(job, control), writer, {
          lower,
          ...meanwhile(job, native, control),
        }),
      );
      return { files, warnings };
    },
  );
  return { ...written, ...(await complete(native.calls, job, 'integrity_checksum')) };
}

export async function mergeImages(job: MergeJob): Promise<WrittenImage> {
  const { image, sources, seal } = job;
  const { calls } = openWriting();
  const flags = CimMergeFlag.singleFile | (seal ? CimMergeFlag.verified : 0);
  const written = await writeImage(
    calls,
    () => createBlock(calls, image, seal),
    async (handle) => {
      for (const source of sources) await calls.addToMergedImage(handle, sourcePath(source), flags);
      return { files: 0, warnings: [] };
    },
  );
  return { ...written, ...(await complete(calls, job, 'merged_integrity_checksum')) };
}

/** An image is committed when `write` is through, and its handle closed however that ends. */
async function writeImage<T>(
  calls: CimWriteCalls,
  create: () => Promise<CimImageHandle>,
  write: (image: CimImageHandle) => Promise<T>,
): Promise<T> {
  const image = await create();
  try {
    const result = await write(image);
    await calls.commitImage(image);
    return result;
  } finally {
    await calls.closeImage(image);
  }
}

/** Always consistent: the same layer gives the same bytes. */
function createBlock(calls: CimWriteCalls, image: CimImagePath, seal: boolean): Promise<CimImageHandle> {
  const flags = CimCreateFlag.singleFile | CimCreateFlag.consistent | (seal ? CimCreateFlag.verified : 0);
  return calls.createImage2(image.container, flags, null, image.name);
}

/** Close, seal, footer, checksum file: in this order. */
async function complete(
  calls: CimWriteCalls,
  { image: { container }, seal, vhdFooter }: { image: CimImagePath; seal: boolean; vhdFooter: boolean },
  checksumName: string,
): Promise<Pick<WrittenImage, 'cimFiles' | 'bytes' | 'rootHash'>> {
  const hash = seal ? await sealImage(calls, container) : undefined;
  if (vhdFooter) appendVhdFooter(container);
  const names = [basename(container)];
  if (hash !== undefined) {
    writeDurably(join(dirname(container), checksumName), Buffer.from(hash));
    names.push(checksumName);
  }
  const cimFiles = storedFiles(dirname(container), names);
  return {
    cimFiles,
    bytes: totalOf(cimFiles),
    ...(hash === undefined ? {} : { rootHash: `sha256:${hash}` }),
  };
}

function appendVhdFooter(file: string): void {
  const descriptor = openSync(file, 'r+');
  try {
    const size = Math.ceil(fstatSync(descriptor).size / SECTOR) * SECTOR;
    ftruncateSync(descriptor, size);
    const footer = encodeVhdFooter(size, Buffer.from(`${basename(dirname(file))}/${basename(file)}`));
    for (let at = 0; at < footer.length; )
      at += writeSync(descriptor, footer, at, footer.length - at, size + at);
    fsyncSync(descriptor);
  } catch (error) {
    throw classify(error, `add a VHD footer to ${file}`);
  } finally {
    closeSync(descriptor);
  }
}

function writeDurably(file: string, bytes: Uint8Array): void {
  const descriptor = openSync(file, 'w');
  try {
    for (let at = 0; at < bytes.length; ) at += writeSync(descriptor, bytes, at);
    fsyncSync(descriptor);
  } catch (error) {
    throw classify(error, `write ${file}`);
  } finally {
    closeSync(descriptor);
  }
}

function meanwhile(
  { folder }: UnpackForkedJob | UnpackBlockJob,
  { offreg }: WritingCalls,
  { signal }: JobControl,
) {
  return { spoolDirectory: folder, hiveMerger: hiveMerger(offreg, folder), signal };
}

function lowerOf({ lower }: { lower?: string | undefined }, native: WritingCalls): LowerView | undefined {
  return lower === undefined ? undefined : new MountedLayers(lower, native.facts);
}

/** Faults of the tar say whose tar it is. */
async function imported<T>(
  job: UnpackForkedJob | UnpackBlockJob,
  writer: ImageWriter,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const told = await afterFailure(error, async () => writer.abandon());
    throw nameCulprit(told, job, []);
  }
}

/** Those of the names that are there; object ID files need not be. */
function storedFiles(directory: string, names: readonly string[]): StoredFile[] {
  return names.flatMap((name) => {
    const size = fileSize(join(directory, name));
    return size === undefined ? [] : [{ name, size }];
  });
}

function totalOf(files: readonly StoredFile[]): number {
  return files.reduce((sum, { size }) => sum + size, 0);
}
