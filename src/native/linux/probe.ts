import { access, constants, readFile } from 'node:fs/promises';
import { release } from 'node:os';
import { errnoName } from './errno.ts';
import { tryMountApi } from './mount-calls.ts';

const CAP_SYS_ADMIN = 21n;
const FILE_BACKED_SINCE = [6, 12] as const;

/** What bears on mounting EROFS images here. Facts only; what to make of them is the host's business. */
export interface MountFacts {
  /** As uname(2) says. */
  kernelRelease: string;
  /** EROFS: known to the running kernel, a module it can load, or neither. */
  erofs: 'registered' | 'loadable' | 'missing';
  /** overlayfs, likewise. */
  overlay: 'registered' | 'loadable' | 'missing';
  /** fsopen(2): `available`, or the errno's name: ENOSYS (before Linux 5.2, or filtered), EPERM. */
  mountApi: string;
  /** The kernel is new enough (6.12) to mount images in files; its configuration can still say no (ENOTBLK). */
  fileBacked: boolean;
  capSysAdmin: boolean;
  /** False in a user namespace of its own, where CAP_SYS_ADMIN doesn't extend to EROFS. */
  initialUserNamespace: boolean;
  /** /dev/loop-control can be opened. */
  loopDevices: boolean;
}

/** Looks only: nothing is mounted, no module loaded. Never throws for what is merely missing. */
export async function probeMounting(): Promise<MountFacts> {
  const kernelRelease = release();
  const [filesystems, modules, status, uidMap, errno] = await Promise.all([
    textOf('/proc/filesystems'),
    textOf(`/lib/modules/${kernelRelease}/modules.dep`),
    textOf('/proc/self/status'),
    textOf('/proc/self/uid_map'),
    tryMountApi(),
  ]);
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0';
  return {
    kernelRelease,
    erofs: filesystemState('erofs', filesystems, modules),
    overlay: filesystemState('overlay', filesystems, modules),
    mountApi: errno === 0 ? 'available' : errnoName(errno),
    fileBacked: isAtLeast(kernelRelease, FILE_BACKED_SINCE),
    capSysAdmin: ((BigInt(`0x${effective}`) >> CAP_SYS_ADMIN) & 1n) === 1n,
    initialUserNamespace: /^\s*0\s+0\s+4294967295\s*$/.test(uidMap),
    loopDevices: await canOpen('/dev/loop-control'),
  };
}

function filesystemState(name: string, filesystems: string, modules: string): MountFacts['erofs'] {
  if (filesystems.split('\n').includes(`nodev\t${name}`) || filesystems.split('\n').includes(`\t${name}`))
    return 'registered';
  return modules.includes(`/${name}.ko`) ? 'loadable' : 'missing';
}

function isAtLeast(kernelRelease: string, [major, minor]: readonly [number, number]): boolean {
  const [, ourMajor = '0', ourMinor = '0'] = /^(\d+)\.(\d+)/.exec(kernelRelease) ?? [];
  return Number(ourMajor) > major || (Number(ourMajor) === major && Number(ourMinor) >= minor);
}

/** A file's text; empty when it isn't there or may not be read. */
async function textOf(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (isMissing(error)) return '';
    throw error;
  }
}

async function canOpen(path: string): Promise<boolean> {
  try {
    await access(path, constants.R_OK | constants.W_OK);
    return true;
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}

function isMissing(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ENOENT' || code === 'ENOTDIR' || code === 'EACCES' || code === 'EPERM';
}
