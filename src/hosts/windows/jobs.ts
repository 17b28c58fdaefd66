/** The work done in a thread: plain data in, plain data out. Cimfs' calls on entries block, and there are many. */

import type { CimImagePath } from '../../native/windows/cimfs.ts';
import type { ExportDiskJob, ExportScratchJob } from '../disk-tar.ts';
import type { DiffId, EffectContext, LayerBlob } from '../host.ts';
import { runInThread, threadEntry } from '../job-thread.ts';
import type { LayerDisk } from '../layer-disk.ts';
import type { StoredFile } from '../records.ts';
import type { UnpackLinuxJob } from '../unpack-linux.ts';
import type { AfterImport } from './delta-writer.ts';
import type { LinuxScratchJob } from './linux-scratch.ts';

interface UnpackInput {
  blob: LayerBlob;
  diffId: DiffId;
  /** The volume that shows the layers below; absent for a base layer. */
  lower?: string | undefined;
  /** The layer's own, for what is needed meanwhile. */
  folder: string;
}

/** Decodes and verifies a blob into a forked image in `directory`. */
export interface UnpackForkedJob extends UnpackInput {
  kind: 'unpack-forked';
  directory: string;
  /** Names of `.cim` files. */
  image: string;
  parent?: string | undefined;
}

/** Decodes and verifies a blob into a new block container. */
export interface UnpackBlockJob extends UnpackInput {
  kind: 'unpack-block';
  image: CimImagePath;
  seal: boolean;
  vhdFooter: boolean;
}

/** Merges block images, topmost first, into a new container. */
export interface MergeJob {
  kind: 'merge';
  image: CimImagePath;
  sources: CimImagePath[];
  seal: boolean;
  vhdFooter: boolean;
}

/** Decodes and verifies a blob into what Windows makes a WCIFS layer of. Layers are folders, parents topmost first. */
export interface UnpackWcifsJob extends UnpackInput {
  kind: 'unpack-wcifs';
  layer: string;
  parents: readonly string[];
  /** Where files go that ImportLayer is to read; unused for a base layer. */
  importFrom: string;
}

/** Does what has to wait until Windows has imported a layer. */
export interface CompleteWcifsJob {
  kind: 'complete-wcifs';
  layer: string;
  parents: readonly string[];
  afterImport: AfterImport;
}

/** Writes what makes one tree of another as the tar of a layer. */
export interface ExportTreeJob {
  kind: 'export-tree';
  /** Directories, which end in a backslash. */
  upper: string;
  lower?: string | undefined;
  /** Where the tree is in the tar; empty for one that is laid out as a layer. */
  below: 'Files' | '';
  /** Leaves out the hives that an import makes of a layer's registry deltas, in both trees. */
  hidesHives?: boolean | undefined;
  file: string;
  temporary: string;
}

/** Writes what ExportLayer made, or a base layer's own folder, as the tar of a layer. */
export interface ExportFolderJob {
  kind: 'export-folder';
  folder: string;
  /** About how many the tar has. */
  bytes: number;
  file: string;
  temporary: string;
}

export interface JobResults {
  'unpack-forked': WrittenImage;
  'unpack-block': WrittenImage;
  merge: WrittenImage;
  'unpack-wcifs': WrittenWcifs;
  'complete-wcifs': undefined;
  'unpack-linux': LayerDisk;
  'linux-scratch': undefined;
  'export-tree': { diffId: DiffId };
  'export-folder': undefined;
  'export-disk': { bytes: number };
  'export-scratch': { diffId: DiffId };
}

export type Job =
  | UnpackForkedJob
  | UnpackBlockJob
  | MergeJob
  | UnpackWcifsJob
  | CompleteWcifsJob
  | ExportTreeJob
  | ExportFolderJob
  | ExportDiskJob
  | ExportScratchJob
  | LinuxScratchJob
  | ({ kind: 'unpack-linux' } & UnpackLinuxJob);

/** What was written. */
export interface WrittenImage {
  cimFiles: StoredFile[];
  bytes: number;
  files: number;
  warnings: string[];
  /** As `sha256:…`, of what was sealed. */
  rootHash?: string | undefined;
}

export interface WrittenWcifs extends Pick<WrittenImage, 'bytes' | 'files' | 'warnings'> {
  /** The layer has a utility VM of its own, which Windows has to process. */
  hasUtilityVm: boolean;
  afterImport: AfterImport;
}

const ENTRY = threadEntry('job-entry', import.meta.url);

/** On abort the job cleans up after itself as far as it can, then this throws `cancelled`. */
export async function runJob<Kind extends Job['kind']>(
  job: Extract<Job, { kind: Kind }>,
  context: EffectContext,
): Promise<JobResults[Kind]> {
  return runInThread<Job, JobResults[Kind]>(ENTRY, job, context);
}
